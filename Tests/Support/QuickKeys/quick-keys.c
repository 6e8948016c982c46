// Makes QEMU's programs quick at making passwords for tests.
//
// Before they add one they try for a second or two of processor time, twice, how many rounds this machine can do. They are told here that each try took
// a thousand times as long as it did, so that the first is enough and the fewest rounds are chosen. Nothing else asks for the time of a thread.

#define _GNU_SOURCE
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// By the program itself: ours is run under other names too, and keeps its own time.
static int isQEMU(void) {
    char path[256];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    const char *name = strrchr(path, '/');
    return name && strncmp(name, "/qemu-", 6) == 0;
}

static void stretch(struct timeval *time) {
    long long microseconds = (time->tv_sec * 1000000LL + time->tv_usec) * 1000;
    time->tv_sec = microseconds / 1000000;
    time->tv_usec = microseconds % 1000000;
}

int getrusage(__rusage_who_t who, struct rusage *usage) {
    int result = (int)syscall(SYS_getrusage, who, usage);
    if (result == 0 && who == RUSAGE_THREAD && isQEMU()) {
        stretch(&usage->ru_utime);
        stretch(&usage->ru_stime);
    }
    return result;
}
