#include "file_calls.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

static int flags_for(int options) {
    int flags = O_CLOEXEC | (options & STRATA_OPEN_WRITE ? O_RDWR : O_RDONLY);
    if (options & STRATA_OPEN_CREATE) flags |= O_CREAT;
    if (options & STRATA_OPEN_EXCLUSIVE) flags |= O_EXCL;
    if (options & STRATA_OPEN_TRUNCATE) flags |= O_TRUNC;
    if (options & STRATA_OPEN_DIRECT) flags |= O_DIRECT;
    return flags;
}

/* Files are opened without waiting, lest a pipe under an image's name hold us up for ever; requests on them wait as usual. */
static int waiting(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int strata_open(const char *path, int options) {
    int fd;
    do fd = open(path, flags_for(options) | O_NONBLOCK, 0644);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : waiting(fd);
}

int strata_open_cached(const char *path, int options) {
#if defined(SYS_openat2) && defined(RESOLVE_CACHED)
    struct open_how how = {.flags = (uint64_t)(flags_for(options) | O_NONBLOCK), .resolve = RESOLVE_CACHED};
    if (how.flags & (O_CREAT | O_TRUNC)) return -EAGAIN;
    long fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    return fd < 0 ? -errno : waiting((int)fd);
#else
    (void)path, (void)options;
    return -EAGAIN;
#endif
}

int strata_close(int fd) { return close(fd) < 0 ? -errno : 0; }

int strata_close_in_place(int fd) {
    int nowhere = open("/", O_PATH | O_CLOEXEC);
    if (nowhere < 0) return -errno;
    int result = dup3(nowhere, fd, O_CLOEXEC) < 0 ? -errno : 0;
    close(nowhere);
    return result;
}

int strata_reopen(int fd, int options) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return strata_open(path, options);
}

int strata_duplicate(int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? -errno : copy;
}

int strata_descriptor_access(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    int access = flags & O_DIRECT ? STRATA_ACCESS_DIRECT : 0;
    switch (flags & O_ACCMODE) {
    case O_RDONLY: return flags & O_PATH ? access : access | STRATA_ACCESS_READ;
    case O_WRONLY: return access | STRATA_ACCESS_WRITE;
    default: return access | STRATA_ACCESS_READ | STRATA_ACCESS_WRITE;
    }
}

int strata_descriptor_is_inherited(int fd) {
    int flags = fcntl(fd, F_GETFD);
    return flags >= 0 && !(flags & FD_CLOEXEC);
}

int strata_status(int fd, strata_file_status *status) {
    struct stat st;
    struct statfs fs;
    if (fstat(fd, &st) < 0) return -errno;
    status->size = st.st_size;
    status->allocated = (int64_t)st.st_blocks * 512;
    status->device = st.st_dev;
    status->inode = st.st_ino;
    status->is_regular = S_ISREG(st.st_mode);
    status->is_block_device = S_ISBLK(st.st_mode);
    status->is_character_device = S_ISCHR(st.st_mode);
    // 0x01021994 is tmpfs, 0x858458f6 ramfs, 0xef53 ext4 (statfs(2)). The names of devices lie in a tmpfs too.
    int is_known = status->is_regular && fstatfs(fd, &fs) == 0;
    status->is_memory = is_known && (fs.f_type == 0x01021994 || (unsigned)fs.f_type == 0x858458f6u);
    status->delays_allocation = is_known && fs.f_type == 0xef53;
    if (status->is_block_device) {
        uint64_t bytes = 0;
        if (ioctl(fd, BLKGETSIZE64, &bytes) < 0) return -errno;
        status->size = (int64_t)bytes;
    }
    return 0;
}

int strata_device_is_read_only(int fd) {
    int answer = 0;
    return ioctl(fd, BLKROGET, &answer) == 0 && answer;
}

ssize_t strata_preadv(int fd, const struct iovec *vector, int count, int64_t offset) {
    ssize_t result;
    do result = count == 1 ? pread(fd, vector->iov_base, vector->iov_len, offset) : preadv(fd, vector, count, offset);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

ssize_t strata_pwritev(int fd, const struct iovec *vector, int count, int64_t offset) {
    ssize_t result;
    do result = count == 1 ? pwrite(fd, vector->iov_base, vector->iov_len, offset) : pwritev(fd, vector, count, offset);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

ssize_t strata_preadv_nowait(int fd, const struct iovec *vector, int count, int64_t offset) {
    ssize_t result = preadv2(fd, vector, count, offset, RWF_NOWAIT);
    return result < 0 ? -errno : result;
}

int strata_fdatasync(int fd) { return fdatasync(fd) < 0 ? -errno : 0; }
void strata_start_writeback(int fd) { (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE); }
int strata_truncate(int fd, int64_t size) { return ftruncate(fd, size) < 0 ? -errno : 0; }

static int allocate(int fd, int mode, int64_t offset, int64_t count) {
    int result;
    do result = fallocate(fd, mode, offset, count);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

int strata_allocate(int fd, int64_t offset, int64_t count) { return allocate(fd, 0, offset, count); }
int strata_reserve(int fd, int64_t offset, int64_t count) { return allocate(fd, FALLOC_FL_KEEP_SIZE, offset, count); }
int strata_punch_hole(int fd, int64_t offset, int64_t count) { return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count); }
int strata_zero_range(int fd, int64_t offset, int64_t count) { return allocate(fd, FALLOC_FL_ZERO_RANGE, offset, count); }

int64_t strata_seek_data(int fd, int64_t offset) {
    off_t result = lseek(fd, offset, SEEK_DATA);
    return result < 0 ? -errno : result;
}

int64_t strata_seek_hole(int fd, int64_t offset) {
    off_t result = lseek(fd, offset, SEEK_HOLE);
    return result < 0 ? -errno : result;
}

ssize_t strata_copy_file_range(int from, int64_t from_offset, int to, int64_t to_offset, size_t count) {
    off_t in = from_offset, out = to_offset;
    ssize_t result = copy_file_range(from, &in, to, &out, count, 0);
    return result < 0 ? -errno : result;
}

int strata_clone_range(int from, int64_t from_offset, int to, int64_t to_offset, int64_t count) {
    struct file_clone_range range = {.src_fd = from, .src_offset = (uint64_t)from_offset, .src_length = (uint64_t)count, .dest_offset = (uint64_t)to_offset};
    return ioctl(to, FICLONERANGE, &range) < 0 ? -errno : 0;
}

int strata_drop_cache(int fd) { return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); }

int64_t strata_count_cached(int fd, int64_t size) {
    enum { WINDOW = 128 << 20 };
    long page = sysconf(_SC_PAGESIZE);
    unsigned char *flags = malloc(WINDOW / page);
    if (!flags) return -ENOMEM;
    int64_t cached = 0;
    for (int64_t start = 0; start < size && cached >= 0; start += WINDOW) {
        size_t count = size - start < WINDOW ? (size_t)(size - start) : WINDOW;
        void *address = mmap(NULL, count, PROT_READ, MAP_SHARED, fd, start);
        if (address == MAP_FAILED) {
            cached = -errno;
            break;
        }
        if (mincore(address, count, flags) < 0) {
            cached = -errno;
        } else {
            for (size_t index = 0; index < (count + page - 1) / page; index++) cached += flags[index] & 1;
        }
        munmap(address, count);
    }
    free(flags);
    return cached;
}

int strata_set_extent_hint(int fd, uint32_t bytes) {
    struct fsxattr attributes;
    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) < 0) return -errno;
    attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
    attributes.fsx_extsize = bytes;
    return ioctl(fd, FS_IOC_FSSETXATTR, &attributes) < 0 ? -errno : 0;
}

static struct flock range(int64_t start, int64_t count, short type) {
    return (struct flock){.l_whence = SEEK_SET, .l_start = start, .l_len = count, .l_type = type};
}

int strata_lock_bytes(int fd, int64_t start, int64_t count, int exclusive) {
    struct flock lock = range(start, count, exclusive ? F_WRLCK : F_RDLCK);
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

int strata_unlock_bytes(int fd, int64_t start, int64_t count) {
    struct flock lock = range(start, count, F_UNLCK);
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

int strata_test_lock(int fd, int64_t start, int64_t count, int exclusive, int *holder) {
    struct flock lock = range(start, count, exclusive ? F_WRLCK : F_RDLCK);
    *holder = 0;
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0) return -errno;
    if (lock.l_type == F_UNLCK) return 0;
    *holder = lock.l_pid > 0 ? lock.l_pid : 0;
    return 1;
}
