#include "socket_calls.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define STREAM_FLAGS (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)

static int unix_address(struct sockaddr_un *address, const char *path, size_t length, int kind, socklen_t *size) {
    int is_abstract = kind != STRATA_UNIX_PATH;
    if (length == 0 || length + 1 > sizeof address->sun_path) return -ENAMETOOLONG;
    /* The kernel would take what stands before it for the name. */
    if (!is_abstract && memchr(path, 0, length)) return -ENOENT;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path + is_abstract, path, length);
    *size = kind == STRATA_UNIX_PADDED ? (socklen_t)sizeof *address : (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return 0;
}

static int fail(int fd) {
    int error = errno;
    close(fd);
    return -error;
}

int strata_listen_unix(const char *path, size_t length, int kind, int backlog) {
    struct sockaddr_un address;
    socklen_t size;
    int result = unix_address(&address, path, length, kind, &size);
    if (result < 0) return result;
    int fd = socket(AF_UNIX, STREAM_FLAGS, 0);
    if (fd < 0) return -errno;
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, backlog) < 0) return fail(fd);
    return fd;
}

// A peer that does not answer is given up after this time; the kernel's own limit is minutes. The limit also holds for blocking sends, of which
// there are none: sockets are made non-blocking before they carry anything.
static void limit_connect_time(int fd) {
    struct timeval limit = {.tv_sec = 10};
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int connect_failed(int fd) {
    // What the kernel calls "in progress" or "try again" when the time is over.
    if (errno == EINPROGRESS || errno == EAGAIN) errno = ETIMEDOUT;
    return fail(fd);
}

int strata_connect_unix(const char *path, size_t length, int kind) {
    struct sockaddr_un address;
    socklen_t size;
    int result = unix_address(&address, path, length, kind, &size);
    if (result < 0) return result;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    limit_connect_time(fd);
    if (connect(fd, (struct sockaddr *)&address, size) < 0) return connect_failed(fd);
    return fd;
}

static int resolve(const char *host, const char *port, int passive, int family, int flags, struct addrinfo **list) {
    int hint = family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC;
    struct addrinfo hints = {.ai_family = hint, .ai_socktype = SOCK_STREAM, .ai_flags = (passive ? AI_PASSIVE : 0) | (flags & STRATA_TCP_NUMERIC ? AI_NUMERICHOST | AI_NUMERICSERV : 0)};
    int code = getaddrinfo(host && *host ? host : NULL, port, &hints, list);
    return code ? code - 1000 : 0;
}

const char *strata_address_error(int code) { return gai_strerror(code + 1000); }

static int tcp_socket(int family, int type, int flags) {
    int fd = socket(family, type, flags & STRATA_TCP_MULTIPATH ? IPPROTO_MPTCP : 0);
    if (fd < 0) return -errno;
    int one = 1;
    if (flags & STRATA_TCP_KEEP_ALIVE && setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) < 0) return fail(fd);
    return fd;
}

// The field of an address that holds its port, in network byte order.
static in_port_t *port_of(struct sockaddr *address) {
    return address->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port : &((struct sockaddr_in *)address)->sin_port;
}

static int listen_at(const struct addrinfo *address, int is_ipv6_only, int flags, int backlog) {
    int one = 1;
    int fd = tcp_socket(address->ai_family, STREAM_FLAGS, flags);
    if (fd < 0) return fd;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (is_ipv6_only && address->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, backlog) < 0) return fail(fd);
    return fd;
}

int strata_listen_tcp(const char *host, const char *port, int last_port, int family, int flags, int backlog, int *descriptors, int *ports, int capacity) {
    struct addrinfo *list;
    int result = resolve(host, port, 1, family, flags, &list);
    if (result < 0) return result;
    result = -EADDRNOTAVAIL;
    int count = 0;
    int has_ipv4 = 0;
    for (struct addrinfo *a = list; a && count < capacity; a = a->ai_next) {
        // An IPv6 socket takes IPv4 clients along, unless that was not wanted or another socket does.
        int is_ipv6_only = family == 6 || has_ipv4;
        in_port_t *number = port_of(a->ai_addr);
        int first = ntohs(*number);
        int fd = listen_at(a, is_ipv6_only, flags, backlog);
        for (int next = first + 1; fd == -EADDRINUSE && first > 0 && next <= last_port; next++) {
            *number = htons((in_port_t)next);
            fd = listen_at(a, is_ipv6_only, flags, backlog);
        }
        if (fd < 0) {
            result = fd;
            continue;
        }
        socklen_t size = a->ai_addrlen;
        if (getsockname(fd, a->ai_addr, &size) < 0) {
            result = fail(fd);
            continue;
        }
        if (a->ai_family == AF_INET) has_ipv4 = 1;
        descriptors[count] = fd;
        ports[count] = ntohs(*number);
        count++;
    }
    freeaddrinfo(list);
    return count > 0 ? count : result;
}

int strata_connect_tcp(const char *host, const char *port, int family, int flags) {
    struct addrinfo *list;
    int result = resolve(host, port, 0, family, flags, &list);
    if (result < 0) return result;
    result = -EADDRNOTAVAIL;
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        int fd = tcp_socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, flags);
        if (fd < 0) {
            result = fd;
            continue;
        }
        limit_connect_time(fd);
        if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            result = connect_failed(fd);
            continue;
        }
        strata_no_delay(fd);
        result = fd;
        break;
    }
    freeaddrinfo(list);
    return result;
}

int strata_is_listening(int fd) {
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) < 0 ? -errno : value;
}

int strata_socket_name(int fd, int peer, char *host, size_t size, int *port) {
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    if ((peer ? getpeername(fd, (struct sockaddr *)&name, &length) : getsockname(fd, (struct sockaddr *)&name, &length)) < 0) return -errno;
    if (name.ss_family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&name;
        *port = ntohs(v4->sin_port);
        return inet_ntop(AF_INET, &v4->sin_addr, host, (socklen_t)size) ? 4 : -errno;
    }
    if (name.ss_family == AF_INET6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&name;
        *port = ntohs(v6->sin6_port);
        return inet_ntop(AF_INET6, &v6->sin6_addr, host, (socklen_t)size) ? 6 : -errno;
    }
    return 0;
}

int strata_accept(int fd) {
    int client;
    do client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (client < 0 && (errno == EINTR || errno == ECONNABORTED));
    return client < 0 ? -errno : client;
}

int strata_no_delay(int fd) {
    int one = 1;
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 ? -errno : 0;
}

int strata_send_buffer(int fd, int bytes) {
    // The forced form goes past the system's limit where we may; the plain form is the fallback.
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) == 0) return 0;
    return setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) < 0 ? -errno : 0;
}

int strata_set_nonblocking(int fd, int nonblocking) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    return fcntl(fd, F_SETFL, nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

int strata_shutdown(int fd) { return shutdown(fd, SHUT_RDWR) < 0 ? -errno : 0; }

ssize_t strata_receive(int fd, void *bytes, size_t count) {
    ssize_t result;
    do result = recv(fd, bytes, count, MSG_DONTWAIT);
    while (result < 0 && errno == EINTR);
    if (result < 0 && errno == ENOTSOCK) { /* a pipe or terminal, such as standard input */
        do result = read(fd, bytes, count);
        while (result < 0 && errno == EINTR);
    }
    return result < 0 ? -errno : result;
}

ssize_t strata_receive_descriptors(int fd, void *bytes, size_t count, int *descriptors, int capacity, int *received) {
    *received = 0;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(STRATA_DESCRIPTOR_LIMIT * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = bytes, .iov_len = count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t result;
    do result = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (result < 0 && errno == EINTR);
    if (result < 0) return errno == ENOTSOCK ? strata_receive(fd, bytes, count) : -errno;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        int many = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < many; i++) {
            int passed;
            memcpy(&passed, CMSG_DATA(part) + (size_t)i * sizeof passed, sizeof passed);
            if (*received < capacity) descriptors[(*received)++] = passed;
            else close(passed);
        }
    }
    return result;
}

ssize_t strata_send(int fd, const void *bytes, size_t count, int more) {
    ssize_t result;
    do result = send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    while (result < 0 && errno == EINTR);
    if (result < 0 && errno == ENOTSOCK) {
        do result = write(fd, bytes, count);
        while (result < 0 && errno == EINTR);
    }
    return result < 0 ? -errno : result;
}

ssize_t strata_send_vector(int fd, const struct iovec *vector, int count, int more) {
    struct msghdr message = {.msg_iov = (struct iovec *)vector, .msg_iovlen = (size_t)count};
    ssize_t result;
    do result = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

ssize_t strata_send_file(int socket, int file, int64_t *offset, size_t count) {
    off_t position = *offset;
    ssize_t result;
    do result = sendfile(socket, file, &position, count);
    while (result < 0 && errno == EINTR);
    if (result < 0) return -errno;
    *offset = position;
    return result;
}
