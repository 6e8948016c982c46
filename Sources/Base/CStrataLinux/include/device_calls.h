// Block devices: what they are like, and how their blocks are discarded and zeroed. Negative errno on failure.
#pragma once
#include <stdint.h>

typedef struct {
    unsigned major, minor;
    int logical_block;        // bytes
    unsigned optimal_size;    // bytes; 0 if the device has no opinion
} strata_device_geometry;
int strata_device_describe(int fd, strata_device_geometry *geometry);
int strata_device_discard(int fd, int64_t offset, int64_t count);        // contents undefined afterwards
int strata_device_zero(int fd, int64_t offset, int64_t count);           // reads as zeroes; the kernel writes them if the device cannot
// Devices of the kernel's NBD client. attach: the device talks to the server at the other end of `socket`, whose handshake is done; `flags` are the
// server's transmission flags. run: serves the device until somebody disconnects it; blocks. disconnect: ends the connection.
int strata_nbd_attach(int fd, int socket, unsigned block, uint64_t blocks, unsigned flags);
int strata_nbd_run(int fd);
int strata_nbd_disconnect(int fd);
// 1 if there is a block device of that name, 0 if not.
int strata_is_block_device(const char *path);
