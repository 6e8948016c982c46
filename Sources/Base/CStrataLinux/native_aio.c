#include "native_aio.h"
#include <errno.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(strata_aio_request) == sizeof(struct iocb), "the opaque request has the kernel's size");

int strata_aio_open(strata_aio_context *context, unsigned depth) {
    *context = 0;
    return syscall(__NR_io_setup, depth, context) < 0 ? -errno : 0;
}

void strata_aio_close(strata_aio_context context) { syscall(__NR_io_destroy, context); }

static struct iocb *prepare(strata_aio_request *request, int fd, int event_fd, uint64_t user_data) {
    struct iocb *block = (struct iocb *)request;
    memset(block, 0, sizeof *block);
    block->aio_data = user_data;
    block->aio_fildes = (unsigned)fd;
    block->aio_flags = IOCB_FLAG_RESFD;
    block->aio_resfd = (unsigned)event_fd;
    return block;
}

void strata_aio_prepare(strata_aio_request *request, int is_write, int fd, const void *vector, unsigned count, int64_t offset, int event_fd, uint64_t user_data) {
    struct iocb *block = prepare(request, fd, event_fd, user_data);
    block->aio_lio_opcode = is_write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV;
    block->aio_buf = (uint64_t)(uintptr_t)vector;
    block->aio_nbytes = count;
    block->aio_offset = offset;
}

void strata_aio_prepare_fdsync(strata_aio_request *request, int fd, int event_fd, uint64_t user_data) {
    struct iocb *block = prepare(request, fd, event_fd, user_data);
    block->aio_lio_opcode = IOCB_CMD_FDSYNC;
}

int strata_aio_submit(strata_aio_context context, long count, strata_aio_request **requests) {
    long result = syscall(__NR_io_submit, context, count, (struct iocb **)requests);
    return result < 0 ? -errno : (int)result;
}

int strata_aio_reap(strata_aio_context context, strata_completion *out, unsigned capacity) {
    struct io_event events[128];
    struct timespec now = {0, 0};
    if (capacity > 128) capacity = 128;
    long count = syscall(__NR_io_getevents, context, 0, (long)capacity, events, &now);
    if (count < 0) return -errno;
    for (long i = 0; i < count; i++) {
        out[i].user_data = events[i].data;
        out[i].result = (int32_t)events[i].res;
    }
    return (int)count;
}
