// Linux native AIO by system call: four calls do not need a library.
#pragma once
#include "uring.h"
#include <stdint.h>

typedef unsigned long strata_aio_context;
// The kernel's request block; opaque to Swift, which only needs its size and alignment.
typedef struct {
    uint64_t words[8];
} strata_aio_request;

int strata_aio_open(strata_aio_context *context, unsigned depth);
void strata_aio_close(strata_aio_context context);
// `vector` and `request` must stay in place until the completion; `event_fd` is written when it completes.
void strata_aio_prepare(strata_aio_request *request, int is_write, int fd, const void *vector, unsigned count, int64_t offset, int event_fd, uint64_t user_data);
void strata_aio_prepare_fdsync(strata_aio_request *request, int fd, int event_fd, uint64_t user_data);
// Returns how many were accepted (possibly fewer than `count`) or a negative errno.
int strata_aio_submit(strata_aio_context context, long count, strata_aio_request **requests);
// Takes what is complete without waiting.
int strata_aio_reap(strata_aio_context context, strata_completion *out, unsigned capacity);
