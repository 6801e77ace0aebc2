/* The least that an upload server can do: the limit that Spool is measured against.

   floor PORT DIR write      receives a body into a buffer of 1 MiB and writes it to a file
   floor PORT DIR durable    hashes it with SHA-256 too, starts write-back early, and syncs file and directory

   One blocking thread for each connection. A body is taken as it is, a form unparsed, and needs a Content-Length.
   GET /NAME sends DIR/NAME, so that the bare download can be measured as well. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BODY = 1 << 20, HEAD = 1 << 16, WRITE_BACK = 8 << 20, WAKE = 256 << 10 };

typedef struct { /* one connection; head[0..have) is what came and is not used yet */
  int socket;
  size_t have;
  char head[HEAD + 1], body[BODY];
} Connection;

typedef struct {
  int fd;
  off_t size, started; /* written; of that, write-back was asked for */
  unsigned char hash[256]; /* more than a SHA256_CTX */
  char name[32];
} Upload;

static int directory, durable;
static _Atomic long names;
static int (*sha_init)(void *), (*sha_update)(void *, const void *, size_t), (*sha_final)(unsigned char *, void *);

static int load_sha256(void) {
  void *library = dlopen("libcrypto.so.3", RTLD_NOW);
  if (!library) return -1;
  *(void **)&sha_init = dlsym(library, "SHA256_Init");
  *(void **)&sha_update = dlsym(library, "SHA256_Update");
  *(void **)&sha_final = dlsym(library, "SHA256_Final");
  return sha_init && sha_update && sha_final ? 0 : -1;
}

/* The length of the next head, which is in c->head; 0 when the client is done. */
static size_t receive_head(Connection *c) {
  for (;;) {
    c->head[c->have] = 0;
    char *end = memmem(c->head, c->have, "\r\n\r\n", 4);
    if (end) return end + 4 - c->head;
    if (c->have == HEAD) return 0;
    ssize_t n = recv(c->socket, c->head + c->have, HEAD - c->have, 0);
    if (n <= 0) return 0;
    c->have += n;
  }
}

static void use(Connection *c, size_t n) { memmove(c->head, c->head + n, c->have -= n); }

static int answer(Connection *c, const char *status, const char *body, off_t length) {
  char head[256];
  int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %ld\r\n\r\n%s", status, (long)length, body);
  return send(c->socket, head, n, MSG_NOSIGNAL | (*body || !length ? 0 : MSG_MORE)) < 0 ? -1 : 0;
}

static int download(Connection *c, size_t head) {
  struct stat st;
  char *name = c->head + 5; /* behind "GET /" */
  name[strcspn(name, " ?/")] = 0;
  int fd = *name && *name != '.' ? openat(directory, name, O_RDONLY) : -1;
  use(c, head);
  if (fd < 0 || fstat(fd, &st)) return answer(c, "404 Not Found", "", 0);
  int failed = answer(c, "200 OK", "", st.st_size);
  for (off_t sent = 0; !failed && sent < st.st_size;) failed = sendfile(c->socket, fd, &sent, st.st_size - sent) <= 0;
  close(fd);
  return failed ? -1 : 0;
}

static int begin(Upload *u) {
  snprintf(u->name, sizeof u->name, "f%ld", names++);
  char staged[40];
  snprintf(staged, sizeof staged, ".%s", u->name);
  u->size = u->started = 0;
  if (durable) sha_init(u->hash);
  return u->fd = openat(directory, staged, O_WRONLY | O_CREAT | O_TRUNC, 0600);
}

static int append(Upload *u, const char *bytes, size_t n) {
  if (durable) sha_update(u->hash, bytes, n);
  for (size_t done = 0; done < n;) {
    ssize_t w = write(u->fd, bytes + done, n - done);
    if (w <= 0) return -1;
    done += w;
  }
  u->size += n;
  if (durable && u->size - u->started >= WRITE_BACK) {
    sync_file_range(u->fd, u->started, u->size - u->started, SYNC_FILE_RANGE_WRITE);
    u->started = u->size;
  }
  return 0;
}

static int finish(Upload *u) {
  char staged[40];
  unsigned char digest[32];
  snprintf(staged, sizeof staged, ".%s", u->name);
  if (durable) sha_final(digest, u->hash);
  int failed = durable && fsync(u->fd);
  close(u->fd);
  failed |= renameat(directory, staged, directory, u->name);
  return failed || (durable && fsync(directory)) ? -1 : 0;
}

/* A slow sender must not wake this thread for every segment, so it sleeps until WAKE bytes are there. */
static void wake_late(Connection *c, long left) {
  int low = left > WAKE ? WAKE : 1;
  setsockopt(c->socket, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
}

static int receive(Connection *c, Upload *u, long left) {
  size_t fill = (size_t)left < c->have ? (size_t)left : c->have;
  memcpy(c->body, c->head, fill);
  use(c, fill);
  int big = left > BODY;
  for (left -= fill; left > 0 || fill; fill = 0) {
    while (left > 0 && fill < BODY) {
      if (big) wake_late(c, left < (long)(BODY - fill) ? left : (long)(BODY - fill));
      size_t room = (size_t)left < BODY - fill ? (size_t)left : BODY - fill;
      ssize_t n = recv(c->socket, c->body + fill, room, 0);
      if (n <= 0) return -1;
      fill += n, left -= n;
    }
    if (append(u, c->body, fill)) return -1;
  }
  if (big) wake_late(c, 0);
  return 0;
}

static int upload(Connection *c, size_t head) {
  char text[64];
  char *length = strcasestr(c->head, "\r\ncontent-length:");
  long left = length ? atol(length + 17) : 0;
  c->head[head - 1] = 0;
  int expects = strcasestr(c->head, "100-continue") != 0;
  use(c, head);
  if (expects && send(c->socket, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL) < 0) return -1;
  Upload u;
  if (begin(&u) < 0) return -1;
  if (receive(c, &u, left)) return close(u.fd), -1;
  if (finish(&u)) return -1;
  return answer(c, "201 Created", text, snprintf(text, sizeof text, "/%s", u.name));
}

static void *serve(void *argument) {
  Connection *c = argument;
  for (size_t head; (head = receive_head(c));)
    if (strncmp(c->head, "GET /", 5) ? upload(c, head) : download(c, head)) break;
  shutdown(c->socket, SHUT_WR);
  close(c->socket);
  free(c);
  return 0;
}

int main(int count, char **arguments) {
  if (count != 4) return fprintf(stderr, "usage: floor PORT DIR write|durable\n"), 2;
  durable = !strcmp(arguments[3], "durable");
  if ((directory = open(arguments[2], O_RDONLY | O_DIRECTORY)) < 0) return perror(arguments[2]), 1;
  if (durable && load_sha256()) return fprintf(stderr, "no libcrypto\n"), 1;
  signal(SIGPIPE, SIG_IGN);
  int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) return perror("bind"), 1;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&small, 64 << 10);
  for (;;) {
    Connection *c = malloc(sizeof *c);
    pthread_t thread;
    if (!c || (c->socket = accept(listener, 0, 0)) < 0) return perror("accept"), 1;
    c->have = 0;
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (pthread_create(&thread, &small, serve, c)) return perror("pthread_create"), 1;
  }
}
