// A file of its own because <linux/stat.h>, which has the newer statx fields, cannot stand beside the C library's <sys/stat.h>.
#include "file_calls.h"
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int strata_direct_alignment(int fd) {
#ifdef STATX_DIOALIGN
    struct statx status;
    if (syscall(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && status.stx_mask & STATX_DIOALIGN)
        return (int)status.stx_dio_offset_align;
#endif
    return 0;
}
