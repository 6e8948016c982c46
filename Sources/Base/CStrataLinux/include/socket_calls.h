// Sockets: non-blocking, close-on-exec, never SIGPIPE. Negative errno on failure.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

// A name in the file system; an abstract one that ends where its text ends; one that fills the address with zeroes.
enum { STRATA_UNIX_PATH = 0, STRATA_UNIX_ABSTRACT = 1, STRATA_UNIX_PADDED = 2 };
int strata_listen_unix(const char *path, size_t length, int kind, int backlog);
int strata_connect_unix(const char *path, size_t length, int kind);
// `family` is 4, 6, or 0 for either; `flags` are of these:
enum { STRATA_TCP_NUMERIC = 1 /* nothing is looked up */, STRATA_TCP_MULTIPATH = 2, STRATA_TCP_KEEP_ALIVE = 4 };
// `port` as text; an empty host listens on every address. A name may stand for several addresses: the first `capacity` that can be listened on are,
// each on the first free port up to `last_port`. `descriptors` and `ports` receive the sockets and the ports in use.
// Returns how many there are, and if there is none a negative errno or a getaddrinfo code below -1000 (see strata_address_error).
int strata_listen_tcp(const char *host, const char *port, int last_port, int family, int flags, int backlog, int *descriptors, int *ports, int capacity);
int strata_connect_tcp(const char *host, const char *port, int family, int flags);
const char *strata_address_error(int code);
// 1 for a socket that waits for clients, 0 for another one.
int strata_is_listening(int fd);
// The address of this end, or of the peer's, in numbers. Returns 4 or 6, 0 for another kind of address, or a negative errno.
int strata_socket_name(int fd, int peer, char *host, size_t size, int *port);
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
