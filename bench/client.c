/* A client that costs little: so many connections, one blocking thread each, that send so many requests in all.

   client PORT CONNECTIONS REQUESTS SECONDS SIZE KIND FIRST RATE SEGMENT HEAD PREFIX SUFFIX

   It stops after REQUESTS or, once those that run are answered, after SECONDS. The n-th request is HEAD, PREFIX, SIZE
   bytes of KIND (random or text) and SUFFIX. In HEAD and PREFIX, ########## stands for FIRST + n, and the bytes begin
   with that number: no two requests bring the same. HEAD has the Content-Length that the caller put in.
   RATE is bytes a second for each connection, 0 for as fast as it goes; SEGMENT bytes go out at a time.
   Prints one JSON object. An answer other than 2xx is an error; the first one goes to stderr. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MARK = 10, CHUNK = 256 << 10, ANSWER = 64 << 10, PATIENCE = 60 };

static int port, text;
static long requests, first;
static size_t size, segment;
static double rate;
static const char *head, *prefix, *suffix;
static _Atomic long next, errors;
static double *latencies, deadline;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void sleep_until(double moment) {
  struct timespec t = {(time_t)moment, (long)((moment - (time_t)moment) * 1e9)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
}

static int connect_to(void) {
  int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval patience = {PATIENCE, 0};
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (!connect(s, (void *)&address, sizeof address)) return s;
  close(s);
  return -1;
}

static int send_all(int s, const char *bytes, size_t n, int flags) {
  while (n) {
    ssize_t sent = send(s, bytes, n, MSG_NOSIGNAL | flags);
    if (sent <= 0) return -1;
    bytes += sent, n -= sent;
  }
  return 0;
}

/* Random bytes, or lines of words as a log has them. */
static void fill(char *bytes, size_t n, uint64_t seed) {
  static const char *line = "2026-11-25 19:55:56 INFO camera 7 stored the take and waits for the next one\n";
  size_t length = strlen(line);
  for (size_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    bytes[i] = text ? line[i % length] : (char)(seed >> 56);
  }
}

static void mark(char *bytes, long number) {
  char digits[MARK + 1];
  snprintf(digits, sizeof digits, "%0*ld", MARK, number);
  memcpy(bytes, digits, MARK);
}

static int send_body(int s, char *bytes, long number) {
  double start = now();
  for (size_t sent = 0; sent < size;) {
    size_t n = size - sent < segment ? size - sent : segment;
    if (!sent && n >= MARK) mark(bytes, number);
    if (send_all(s, bytes, n, sent + n < size || !*suffix ? 0 : MSG_MORE)) return -1;
    sent += n;
    if (rate > 0) sleep_until(start + sent / rate);
  }
  return send_all(s, suffix, strlen(suffix), 0);
}

static int send_request(int s, char *bytes, long number) {
  char start[8192];
  snprintf(start, sizeof start, "%s%s", head, prefix);
  for (char *place = start; (place = strstr(place, "##########")); place += MARK) mark(place, number);
  if (send_all(s, start, strlen(start), size ? MSG_MORE : 0)) return -1;
  return send_body(s, bytes, number);
}

/* Whether a whole answer is in the buffer. */
static int whole(const char *answer, size_t have) {
  const char *end = memmem(answer, have, "\r\n\r\n", 4);
  if (!end) return 0;
  if (strcasestr(answer, "\r\ntransfer-encoding: chunked")) return have >= 5 && !memcmp(answer + have - 5, "0\r\n\r\n", 5);
  const char *length = strcasestr(answer, "\r\ncontent-length:");
  long body = length && length < end ? atol(length + 17) : 0;
  return have - (end + 4 - answer) >= (size_t)body;
}

/* 0, or -1 for an answer that is not 2xx or not whole; *keep is whether the connection can be used again. */
static int receive_answer(int s, char *answer, int *keep) {
  size_t have = 0;
  *keep = 0;
  do {
    if (have == ANSWER - 1) return -1;
    ssize_t n = recv(s, answer + have, ANSWER - 1 - have, 0);
    if (n <= 0) return -1;
    answer[have += n] = 0;
  } while (!whole(answer, have));
  *keep = !strcasestr(answer, "\r\nconnection: close");
  return have > 12 && answer[9] == '2' ? 0 : -1;
}

static void *work(void *unused) {
  char *bytes = malloc(segment), *answer = calloc(1, ANSWER);
  int s = -1, keep;
  long n;
  fill(bytes, segment, (uint64_t)(uintptr_t)bytes ^ (uint64_t)first);
  while (now() < deadline && (n = next++) < requests) {
    double start = now();
    if (s < 0) s = connect_to();
    int failed = s < 0 || send_request(s, bytes, first + n);
    answer[0] = 0;
    keep = 0;
    failed |= s < 0 || receive_answer(s, answer, &keep);
    latencies[n] = now() - start;
    if (failed && !errors++) fprintf(stderr, "%.500s\n", answer);
    if (!keep && s >= 0) close(s), s = -1;
  }
  if (s >= 0) close(s);
  free(bytes), free(answer);
  return unused;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double percentile(double p) { return next ? 1e3 * latencies[(long)(p * (next - 1))] : 0; }

int main(int count, char **a) {
  if (count != 13) return fprintf(stderr, "usage: see the top of client.c\n"), 2;
  port = atoi(a[1]), requests = atol(a[3]), size = atol(a[5]), text = !strcmp(a[6], "text"), first = atol(a[7]);
  rate = atof(a[8]), segment = atol(a[9]), head = a[10], prefix = a[11], suffix = a[12];
  if (segment < 1 || segment > CHUNK) segment = CHUNK;
  if (segment > size) segment = size ? size : 1;
  int connections = atoi(a[2]);
  latencies = calloc(requests, sizeof *latencies);
  pthread_t threads[connections];
  double start = now();
  deadline = start + atof(a[4]);
  for (int i = 0; i < connections; i++)
    if (pthread_create(&threads[i], 0, work, 0)) return perror("pthread_create"), 1;
  for (int i = 0; i < connections; i++) pthread_join(threads[i], 0);
  double seconds = now() - start;
  if (next > requests) next = requests;
  qsort(latencies, next, sizeof *latencies, by_value);
  printf("{\"requests\": %ld, \"errors\": %ld, \"seconds\": %.6f, ", (long)next, (long)errors, seconds);
  printf("\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n", percentile(.5), percentile(.99), percentile(1));
  return 0;
}
