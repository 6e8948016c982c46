#include "process_calls.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct start {
    void (*body)(void *);
    void *argument;
};

static void *run(void *opaque) {
    struct start start = *(struct start *)opaque;
    free(opaque);
    start.body(start.argument);
    return NULL;
}

int strata_thread_start(uint64_t *handle, const char *name, void (*body)(void *), void *argument) {
    struct start *start = malloc(sizeof *start);
    if (!start) return -ENOMEM;
    *start = (struct start){body, argument};
    pthread_t thread;
    int result = pthread_create(&thread, NULL, run, start);
    if (result) {
        free(start);
        return -result;
    }
    char short_name[16];  // the kernel keeps 15 bytes
    unsigned i = 0;
    for (; i < sizeof short_name - 1 && name[i]; i++) short_name[i] = name[i];
    short_name[i] = 0;
    pthread_setname_np(thread, short_name);
    *handle = (uint64_t)thread;
    return 0;
}

void strata_thread_join(uint64_t handle) { pthread_join((pthread_t)handle, NULL); }

int strata_thread_id(void) { return gettid(); }

int strata_open_terminal(char *path, size_t size) {
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return -errno;
    int error = 0;
    if (grantpt(fd) < 0 || unlockpt(fd) < 0) error = errno;
    if (!error) error = ptsname_r(fd, path, size);
    if (!error) return fd;
    close(fd);
    return -error;
}

int strata_terminal_columns(int fd) {
    struct winsize size;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void strata_ignore_sigpipe(void) { signal(SIGPIPE, SIG_IGN); }

int strata_signal_descriptor(const int *signals, int count) {
    sigset_t set;
    sigemptyset(&set);
    for (int index = 0; index < count; index++) sigaddset(&set, signals[index]);
    int result = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (result) return -result;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int strata_take_signal(int fd) {
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

int strata_daemonize(void) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
    pid_t child = fork();
    if (child < 0) return -errno;
    if (child > 0) {
        char status = 1;
        close(ends[1]);
        while (read(ends[0], &status, 1) < 0 && errno == EINTR) {
        }
        _exit(status);
    }
    close(ends[0]);
    if (setsid() < 0) return -errno;
    return ends[1];
}

void strata_daemon_ready(int fd) {
    char status = 0;
    int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        if (null > 2) close(null);
    }
    if (chdir("/") < 0) {
        // Only a convenience (the start directory can be unmounted): the daemon works without it.
    }
    while (write(fd, &status, 1) < 0 && errno == EINTR) {
    }
    close(fd);
}
