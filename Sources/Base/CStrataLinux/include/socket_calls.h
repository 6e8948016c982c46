// Sockets: non-blocking, close-on-exec, never SIGPIPE. Negative errno on failure.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

int strata_listen_unix(const char *path, size_t length, int backlog);
int strata_connect_unix(const char *path, size_t length);
// `port` as text; an empty host listens on every address. *bound_port receives the port in use.
// Returns a negative errno, or a getaddrinfo code below -1000 (see strata_address_error).
int strata_listen_tcp(const char *host, const char *port, int backlog, int *bound_port);
int strata_connect_tcp(const char *host, const char *port);
const char *strata_address_error(int code);
int strata_accept(int fd);
int strata_no_delay(int fd);
int strata_send_buffer(int fd, int bytes);
int strata_set_nonblocking(int fd, int nonblocking);
int strata_shutdown(int fd);

ssize_t strata_receive(int fd, void *bytes, size_t count);
// The same, taking open files that the sender passed along (SCM_RIGHTS), close-on-exec: at most `capacity`, further ones are closed.
enum { STRATA_DESCRIPTOR_LIMIT = 16 };
ssize_t strata_receive_descriptors(int fd, void *bytes, size_t count, int *descriptors, int capacity, int *received);
// more: further bytes follow at once (MSG_MORE).
ssize_t strata_send(int fd, const void *bytes, size_t count, int more);
ssize_t strata_send_vector(int fd, const struct iovec *vector, int count, int more);
// Copies from a file to a socket inside the kernel; *offset advances.
ssize_t strata_send_file(int socket, int file, int64_t *offset, size_t count);
