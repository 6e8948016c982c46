// Readiness, wake-ups and time for an I/O context.
#pragma once
#include <stdint.h>

enum { STRATA_READABLE = 1, STRATA_WRITABLE = 2, STRATA_HANGUP = 4 };

typedef struct {
    uint64_t token;
    unsigned events;
} strata_event;

int strata_epoll_open(void);
int strata_epoll_add(int epoll, int fd, unsigned events, uint64_t token);
int strata_epoll_change(int epoll, int fd, unsigned events, uint64_t token);
int strata_epoll_remove(int epoll, int fd);
// timeout_ns < 0: no limit. Returns how many events were stored (at most 64), or a negative errno.
int strata_epoll_wait(int epoll, strata_event *out, int capacity, int64_t timeout_ns);
int strata_eventfd_open(void);
void strata_eventfd_signal(int fd);
void strata_eventfd_clear(int fd);
// Nanoseconds of the monotonic clock.
int64_t strata_monotonic_now(void);
// One hint to the processor that this is a spin loop.
void strata_relax(void);
