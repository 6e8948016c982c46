// Files: opening, positioned I/O, space management, locks. Negative errno on failure.
#pragma once
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { STRATA_OPEN_WRITE = 1, STRATA_OPEN_CREATE = 2, STRATA_OPEN_EXCLUSIVE = 4, STRATA_OPEN_TRUNCATE = 8, STRATA_OPEN_DIRECT = 16 };
int strata_open(const char *path, int options);
/* The same without waiting for a disk or a server: -EAGAIN when the name is not in the kernel's cache, and for options that change something. */
int strata_open_cached(const char *path, int options);
int strata_close(int fd);
// Closes what is open as `fd`, which stays taken until `strata_close` and leads nowhere: requests on it fail with EBADF.
int strata_close_in_place(int fd);
// Opens the file behind `fd` anew with other options, through /proc (no name look-up, so a renamed file is still the same one).
int strata_reopen(int fd, int options);
int strata_duplicate(int fd);
enum { STRATA_ACCESS_READ = 1, STRATA_ACCESS_WRITE = 2, STRATA_ACCESS_DIRECT = 4 };
// What an open descriptor may do, as a set of the bits above; -EBADF when it is not open.
int strata_descriptor_access(int fd);
// 1 for an open descriptor that survives exec: one that came from our parent. Ours are closed on exec.
int strata_descriptor_is_inherited(int fd);

typedef struct {
    int64_t size;             // bytes; of a block device, its capacity
    int64_t allocated;        // bytes on disk
    uint64_t device, inode;
    int is_regular, is_block_device, is_character_device;
    int is_memory;            // tmpfs or ramfs: plain reads never wait for a disk
    int delays_allocation;    // ext4: accounts for each page of a write by itself where no block is set apart yet
} strata_file_status;
int strata_status(int fd, strata_file_status *status);
// Whether a block device refuses writes although it can be opened for them (BLKROGET).
int strata_device_is_read_only(int fd);
// What O_DIRECT offsets and lengths have to be multiples of, in bytes; 0 if the kernel does not tell.
int strata_direct_alignment(int fd);

ssize_t strata_preadv(int fd, const struct iovec *vector, int count, int64_t offset);
ssize_t strata_pwritev(int fd, const struct iovec *vector, int count, int64_t offset);
// Fails with EAGAIN rather than wait for a disk.
ssize_t strata_preadv_nowait(int fd, const struct iovec *vector, int count, int64_t offset);

int strata_fdatasync(int fd);
// Advice: dirty pages are queued for the disk. Errors stay with the file for the next fdatasync.
void strata_start_writeback(int fd);
int strata_truncate(int fd, int64_t size);
int strata_allocate(int fd, int64_t offset, int64_t count);              // blocks reserved, size grows if needed
int strata_reserve(int fd, int64_t offset, int64_t count);               // blocks reserved, size kept
int strata_punch_hole(int fd, int64_t offset, int64_t count);            // reads as zeroes, space returned
int strata_zero_range(int fd, int64_t offset, int64_t count);            // reads as zeroes, space kept
int64_t strata_seek_data(int fd, int64_t offset);                        // -ENXIO: only a hole up to the end
int64_t strata_seek_hole(int fd, int64_t offset);
ssize_t strata_copy_file_range(int from, int64_t from_offset, int to, int64_t to_offset, size_t count);
// Makes two files share blocks; positions and count are multiples of the file system's block, or the source's end. All or nothing.
int strata_clone_range(int from, int64_t from_offset, int to, int64_t to_offset, int64_t count);

// Gives up the clean pages of a file in the page cache.
int strata_drop_cache(int fd);
// How many pages of the first `size` bytes are in the page cache, or a negative errno.
int64_t strata_count_cached(int fd, int64_t size);
// Has the file system allocate space in pieces of this many bytes.
int strata_set_extent_hint(int fd, uint32_t bytes);

// Open-file-description locks on one byte range. exclusive: write lock. -EAGAIN: somebody else holds it.
int strata_lock_bytes(int fd, int64_t start, int64_t count, int exclusive);
int strata_unlock_bytes(int fd, int64_t start, int64_t count);
// 1 if somebody else's lock conflicts with one of the given kind, 0 if not. *holder receives the pid if the kernel tells (0 if not).
int strata_test_lock(int fd, int64_t start, int64_t count, int exclusive, int *holder);
