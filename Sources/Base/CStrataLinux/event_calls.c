#include "event_calls.h"
#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int strata_epoll_open(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int control(int epoll, int operation, int fd, unsigned events, uint64_t token) {
    struct epoll_event event = {.data.u64 = token};
    if (events & STRATA_READABLE) event.events |= EPOLLIN | EPOLLRDHUP;
    if (events & STRATA_WRITABLE) event.events |= EPOLLOUT;
    return epoll_ctl(epoll, operation, fd, &event) < 0 ? -errno : 0;
}

int strata_epoll_add(int epoll, int fd, unsigned events, uint64_t token) { return control(epoll, EPOLL_CTL_ADD, fd, events, token); }
int strata_epoll_change(int epoll, int fd, unsigned events, uint64_t token) { return control(epoll, EPOLL_CTL_MOD, fd, events, token); }
int strata_epoll_remove(int epoll, int fd) { return control(epoll, EPOLL_CTL_DEL, fd, 0, 0); }

int strata_epoll_wait(int epoll, strata_event *out, int capacity, int64_t timeout_ns) {
    struct epoll_event events[64];
    struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    if (capacity > 64) capacity = 64;
    int count;
#ifdef __NR_epoll_pwait2
    static int has_pwait2 = 1;  // benign race: every thread learns the same answer
    if (has_pwait2 && timeout_ns > 0) {
        count = (int)syscall(__NR_epoll_pwait2, epoll, events, capacity, &limit, NULL, 0);
        if (count < 0 && errno == ENOSYS) {
            has_pwait2 = 0;
            count = epoll_wait(epoll, events, capacity, (int)(timeout_ns / 1000000 + 1));
        }
    } else
#endif
        count = epoll_wait(epoll, events, capacity, timeout_ns < 0 ? -1 : timeout_ns == 0 ? 0 : (int)(timeout_ns / 1000000 + 1));
    if (count < 0) return -errno;
    for (int i = 0; i < count; i++) {
        out[i].token = events[i].data.u64;
        out[i].events = (events[i].events & EPOLLIN ? STRATA_READABLE : 0) | (events[i].events & EPOLLOUT ? STRATA_WRITABLE : 0)
            | (events[i].events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP) ? STRATA_HANGUP : 0);
    }
    return count;
}

int strata_eventfd_open(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void strata_eventfd_signal(int fd) {
    uint64_t one = 1;
    // Fails only when the counter is full, and then the reader is already signalled.
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void strata_eventfd_clear(int fd) {
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

int64_t strata_monotonic_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void strata_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
