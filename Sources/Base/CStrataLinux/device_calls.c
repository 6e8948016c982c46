#include "device_calls.h"
#include <errno.h>
#include <linux/fs.h>
#include <linux/nbd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

int strata_device_describe(int fd, strata_device_geometry *geometry) {
    struct stat st;
    if (fstat(fd, &st) < 0) return -errno;
    geometry->major = major(st.st_rdev);
    geometry->minor = minor(st.st_rdev);
    geometry->optimal_size = 0;
    if (ioctl(fd, BLKSSZGET, &geometry->logical_block) < 0) return -errno;
    if (ioctl(fd, BLKIOOPT, &geometry->optimal_size) < 0) geometry->optimal_size = 0;
    return 0;
}

static int on_range(int fd, unsigned long request, int64_t offset, int64_t count) {
    uint64_t range[2] = {(uint64_t)offset, (uint64_t)count};
    int result;
    do result = ioctl(fd, request, range);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

int strata_device_discard(int fd, int64_t offset, int64_t count) { return on_range(fd, BLKDISCARD, offset, count); }
int strata_device_zero(int fd, int64_t offset, int64_t count) { return on_range(fd, BLKZEROOUT, offset, count); }

int strata_nbd_attach(int fd, int socket, unsigned block, uint64_t blocks, unsigned flags) {
    if (ioctl(fd, NBD_SET_SOCK, (unsigned long)socket) < 0) return -errno;
    if (ioctl(fd, NBD_SET_BLKSIZE, (unsigned long)block) < 0 || ioctl(fd, NBD_SET_SIZE_BLOCKS, (unsigned long)blocks) < 0 ||
        ioctl(fd, NBD_SET_FLAGS, (unsigned long)flags) < 0) {
        int error = errno;
        ioctl(fd, NBD_CLEAR_SOCK);
        return -error;
    }
    return 0;
}

int strata_nbd_run(int fd) {
    // Returns when the connection is over. The kernel calls an orderly disconnect a broken pipe.
    int result = ioctl(fd, NBD_DO_IT) < 0 && errno != EPIPE ? -errno : 0;
    ioctl(fd, NBD_CLEAR_SOCK);
    return result;
}

int strata_nbd_disconnect(int fd) {
    // What is waiting is failed first, so that the device cannot hang on a server that does not answer.
    if (ioctl(fd, NBD_CLEAR_QUE) < 0) return -errno;
    if (ioctl(fd, NBD_DISCONNECT) < 0) return -errno;
    return ioctl(fd, NBD_CLEAR_SOCK) < 0 ? -errno : 0;
}

int strata_is_block_device(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}
