// A minimal binding to io_uring over <linux/io_uring.h>. Ours rather than liburing's, whose header defines feature macros that clash with
// Swift's C library overlay. One thread owns a ring; nothing here is thread safe.
#pragma once
#include <stdint.h>

typedef struct {
    int fd;
    unsigned entries;
    unsigned *sq_head, *sq_tail, *sq_mask, *sq_flags;
    unsigned *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned local_tail;      // entries prepared but not yet shown to the kernel lie between *sq_tail and this
    void *ring_map, *sqe_map;
    unsigned long ring_bytes, sqe_bytes;
} strata_uring;

typedef struct {
    uint64_t user_data;
    int32_t result;
} strata_completion;

// Sets up a ring. Returns 0 or a negative errno (EPERM and ENOSYS mean that this kernel or container has none to give).
int strata_uring_open(strata_uring *ring, unsigned entries);
void strata_uring_close(strata_uring *ring);

enum { STRATA_URING_READV, STRATA_URING_WRITEV, STRATA_URING_FSYNC, STRATA_URING_FDATASYNC, STRATA_URING_POLL };
// Prepares a request. Returns 0, or -EBUSY when the submission queue is full (submit first).
int strata_uring_prepare(strata_uring *ring, int operation, int fd, const void *address, unsigned count, uint64_t offset, uint64_t user_data);
// Prepared but not submitted.
unsigned strata_uring_pending(const strata_uring *ring);
// Submits what is prepared and, if `wait` is not 0, waits until that many completions are there or the time is over.
// timeout_ns < 0: no limit. Returns a negative errno on failure; -ETIME and -EINTR are ordinary.
int strata_uring_enter(strata_uring *ring, unsigned wait, int64_t timeout_ns);
// Takes up to `capacity` completions off the queue and returns how many.
unsigned strata_uring_reap(strata_uring *ring, strata_completion *out, unsigned capacity);
