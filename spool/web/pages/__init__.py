"""Pages for people: server-rendered, and whole without JavaScript; what `spool/web/ui/` adds runs in the browser."""
