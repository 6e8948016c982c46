#include "uring.h"
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int strata_uring_open(strata_uring *ring, unsigned entries) {
    struct io_uring_params params;
    unsigned flag_sets[] = {
        IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN,
        IORING_SETUP_CQSIZE,
    };
    int fd = -1;
    memset(ring, 0, sizeof *ring);
    ring->fd = -1;
    // Older kernels refuse newer flags with EINVAL: ask for less until it agrees.
    for (unsigned i = 0; i < sizeof flag_sets / sizeof flag_sets[0]; i++) {
        memset(&params, 0, sizeof params);
        params.flags = flag_sets[i];
        params.cq_entries = entries * 8;
        fd = (int)syscall(__NR_io_uring_setup, entries, &params);
        if (fd >= 0 || errno != EINVAL) break;
    }
    if (fd < 0) return -errno;
    // Both features are in every kernel since 5.4 and 5.11; without them this binding would have to do more than it is worth.
    if (!(params.features & IORING_FEAT_SINGLE_MMAP) || !(params.features & IORING_FEAT_EXT_ARG)) {
        close(fd);
        return -ENOSYS;
    }
    unsigned long sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    unsigned long cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    ring->ring_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    ring->sqe_bytes = params.sq_entries * sizeof(struct io_uring_sqe);
    ring->ring_map = mmap(NULL, ring->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
    if (ring->ring_map == MAP_FAILED) {
        int error = errno;
        close(fd);
        return -error;
    }
    ring->sqe_map = mmap(NULL, ring->sqe_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
    if (ring->sqe_map == MAP_FAILED) {
        int error = errno;
        munmap(ring->ring_map, ring->ring_bytes);
        close(fd);
        return -error;
    }
    char *base = ring->ring_map;
    ring->fd = fd;
    ring->entries = params.sq_entries;
    ring->sq_head = (unsigned *)(base + params.sq_off.head);
    ring->sq_tail = (unsigned *)(base + params.sq_off.tail);
    ring->sq_mask = (unsigned *)(base + params.sq_off.ring_mask);
    ring->sq_flags = (unsigned *)(base + params.sq_off.flags);
    ring->cq_head = (unsigned *)(base + params.cq_off.head);
    ring->cq_tail = (unsigned *)(base + params.cq_off.tail);
    ring->cq_mask = (unsigned *)(base + params.cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(base + params.cq_off.cqes);
    ring->sqes = ring->sqe_map;
    unsigned *array = (unsigned *)(base + params.sq_off.array);
    for (unsigned i = 0; i < params.sq_entries; i++) array[i] = i;
    ring->local_tail = *ring->sq_tail;
    return 0;
}

void strata_uring_close(strata_uring *ring) {
    if (ring->fd < 0) return;
    munmap(ring->sqe_map, ring->sqe_bytes);
    munmap(ring->ring_map, ring->ring_bytes);
    close(ring->fd);
    ring->fd = -1;
}

unsigned strata_uring_pending(const strata_uring *ring) { return ring->local_tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE); }

int strata_uring_prepare(strata_uring *ring, int operation, int fd, const void *address, unsigned count, uint64_t offset, uint64_t user_data) {
    if (strata_uring_pending(ring) >= ring->entries) return -EBUSY;
    struct io_uring_sqe *sqe = &ring->sqes[ring->local_tail & *ring->sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->fd = fd;
    sqe->addr = (uint64_t)(uintptr_t)address;
    sqe->len = count;
    sqe->off = offset;
    sqe->user_data = user_data;
    switch (operation) {
    case STRATA_URING_READV: sqe->opcode = IORING_OP_READV; break;
    case STRATA_URING_WRITEV: sqe->opcode = IORING_OP_WRITEV; break;
    case STRATA_URING_FSYNC: sqe->opcode = IORING_OP_FSYNC; break;
    case STRATA_URING_FDATASYNC:
        sqe->opcode = IORING_OP_FSYNC;
        sqe->fsync_flags = IORING_FSYNC_DATASYNC;
        break;
    case STRATA_URING_POLL:
        sqe->opcode = IORING_OP_POLL_ADD;
        sqe->poll32_events = POLLIN;
        break;
    default: return -EINVAL;
    }
    ring->local_tail++;
    __atomic_store_n(ring->sq_tail, ring->local_tail, __ATOMIC_RELEASE);
    return 0;
}

int strata_uring_enter(strata_uring *ring, unsigned wait, int64_t timeout_ns) {
    unsigned to_submit = strata_uring_pending(ring);
    struct __kernel_timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    struct io_uring_getevents_arg argument = {.ts = (uint64_t)(uintptr_t)&limit};
    long result;
    if (wait && timeout_ns >= 0) {
        result = syscall(__NR_io_uring_enter, ring->fd, to_submit, wait, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof argument);
    } else {
        result = syscall(__NR_io_uring_enter, ring->fd, to_submit, wait, IORING_ENTER_GETEVENTS, NULL, 0);
    }
    return result < 0 ? -errno : (int)result;
}

unsigned strata_uring_reap(strata_uring *ring, strata_completion *out, unsigned capacity) {
    unsigned head = *ring->cq_head;
    unsigned tail = __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE);
    unsigned count = 0;
    while (head != tail && count < capacity) {
        const struct io_uring_cqe *cqe = &ring->cqes[head & *ring->cq_mask];
        out[count].user_data = cqe->user_data;
        out[count].result = cqe->res;
        count++;
        head++;
    }
    __atomic_store_n(ring->cq_head, head, __ATOMIC_RELEASE);
    return count;
}
