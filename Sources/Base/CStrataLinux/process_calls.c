#include "process_calls.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
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

static int is_forked;

int strata_is_forked(void) { return is_forked; }

struct elsewhere {
    void (*body)(void *);
    void *argument;
    sigset_t mask;
};

static void *run_elsewhere(void *opaque) {
    struct elsewhere *work = opaque;
    pthread_sigmask(SIG_SETMASK, &work->mask, NULL);
    work->body(work->argument);
    return NULL;
}

int strata_run_elsewhere(void (*body)(void *), void *argument) {
    struct elsewhere work = {.body = body, .argument = argument};
    pthread_attr_t attributes;
    struct rlimit limit;
    pthread_t thread;
    sigset_t all;
    pthread_attr_init(&attributes);
    // Where memory is limited, a stack counts.
    if (getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) pthread_attr_setstacksize(&attributes, 2 << 20);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &work.mask);
    int result = pthread_create(&thread, &attributes, run_elsewhere, &work);
    pthread_attr_destroy(&attributes);
    if (result == 0) pthread_join(thread, NULL);
    pthread_sigmask(SIG_SETMASK, &work.mask, NULL);
    return -result;
}

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
void strata_ignore_sigxfsz(void) { signal(SIGXFSZ, SIG_IGN); }

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

static volatile sig_atomic_t user_signal;

static void on_user_signal(int signal) {
    (void)signal;
    user_signal = 1;
}

// Whoever started this process may have blocked signals in the thread that did it, and they stay so.
static void unblock(int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void strata_note_user_signal(void) {
    struct sigaction action = {.sa_handler = on_user_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    unblock(SIGUSR1);
}

int strata_take_user_signal(void) {
    if (!user_signal) return 0;
    user_signal = 0;
    return 1;
}

static char last_words[4096];
static volatile sig_atomic_t last_words_length;

static void on_end(int signal) {
    int saved = errno;
    size_t length = (size_t)last_words_length;
    if (length && write(STDERR_FILENO, last_words, length) < 0) {
        // Nobody is left to tell.
    }
    errno = saved;
    // SA_RESETHAND has given the signal its ordinary meaning back: the process ends by it when the handler returns.
    raise(signal);
}

void strata_set_last_words(const char *text) {
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    last_words_length = 0;
    size_t length = text ? strnlen(text, sizeof last_words) : 0;
    if (length) memcpy(last_words, text, length);
    last_words_length = (sig_atomic_t)length;
    struct sigaction action = {.sa_handler = length ? on_end : SIG_DFL, .sa_flags = length ? (int)SA_RESETHAND : 0};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct sigaction present;
        // What the process was started with ignored stays ignored.
        if (sigaction(ends[i], NULL, &present) == 0 && present.sa_handler == SIG_IGN) continue;
        sigaction(ends[i], &action, NULL);
        unblock(ends[i]);
    }
}

int strata_fork_limited(uint64_t memory, int *errors) {
    pid_t parent = getpid();
    int ends[2] = {-1, -1};
    *errors = -1;
    if (memory && pipe2(ends, O_CLOEXEC) < 0) return -errno;
    pid_t child = fork();
    if (child != 0) {
        int failure = errno;
        if (memory) close(ends[1]);
        if (child > 0) *errors = ends[0];
        else if (memory) close(ends[0]);
        return child < 0 ? -failure : child;
    }
    is_forked = 1;
    if (memory) {
        if (dup2(ends[1], STDERR_FILENO) < 0) return -errno;
        close(ends[0]);
        close(ends[1]);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // The parent may have gone before.
    if (getppid() != parent) _exit(1);
    // An end for want of memory is foreseen: nobody needs a report of where it was.
    static const int crashes[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) signal(crashes[i], SIG_DFL);
    struct rlimit none = {0, 0}, limit = {memory, memory};
    setrlimit(RLIMIT_CORE, &none);
    if (memory && setrlimit(RLIMIT_DATA, &limit) < 0) return -errno;
    return 0;
}

static int64_t milliseconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// What a limited child has written to standard error and nobody has seen yet.
struct reports {
    char text[16384];
    size_t length;
    // The report of a crash has begun, which may be for want of memory: the rest waits for how the child ends.
    int is_crash;
};

static void show(struct reports *reports) {
    size_t done = 0;
    while (done < reports->length) {
        ssize_t count = write(STDERR_FILENO, reports->text + done, reports->length - done);
        if (count < 0 && errno != EINTR) break;
        if (count > 0) done += (size_t)count;
    }
    reports->length = 0;
}

static int begins_crash(const char *line, size_t length) {
    static const char *const words[] = {"Fatal error", "Could not allocate", "terminate called"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (memmem(line, length, words[i], strlen(words[i]))) return 1;
    return 0;
}

// Passes on what is there. Returns 0 at the end of the pipe.
static int pass_on(int fd, struct reports *reports) {
    if (reports->length == sizeof reports->text) {
        // The beginning of a long report says what it is about.
        if (!reports->is_crash) show(reports);
        else reports->length = sizeof reports->text / 2;
    }
    size_t old = reports->length;
    ssize_t count = read(fd, reports->text + old, sizeof reports->text - old);
    if (count < 0) return errno == EINTR || errno == EAGAIN;
    if (count == 0) return 0;
    reports->length += (size_t)count;
    if (reports->is_crash) return 1;
    // The line that has just been added to may be the one.
    size_t line = old;
    while (line > 0 && reports->text[line - 1] != '\n') line--;
    if (begins_crash(reports->text + line, reports->length - line)) reports->is_crash = 1;
    else if (reports->text[reports->length - 1] == '\n') show(reports);
    return 1;
}

int strata_wait_limited(int child, int errors, int64_t milliseconds, int *status) {
    int fd = pidfd_open(child, 0);
    if (fd < 0) return -errno;
    int64_t deadline = milliseconds < 0 ? -1 : milliseconds_now() + milliseconds;
    int late = 0;
    struct reports reports = {.length = 0};
    for (;;) {
        int64_t rest = deadline < 0 ? -1 : deadline - milliseconds_now();
        if (deadline >= 0 && rest <= 0) {
            late = 1;
            kill(child, SIGKILL);
            break;
        }
        struct pollfd events[] = {{.fd = fd, .events = POLLIN}, {.fd = errors, .events = POLLIN}};
        // A signal ends the wait; a limit beyond what poll takes is waited for in parts.
        int ready = poll(events, 2, rest < 0 ? 1000 : rest < 1000 ? (int)rest : 1000);
        if (strata_take_user_signal()) kill(child, SIGUSR1);
        if (ready > 0 && events[1].revents && !pass_on(errors, &reports)) {
            close(errors);
            errors = -1;
        }
        if (ready > 0 && events[0].revents) break;
    }
    close(fd);
    int failure = 0;
    while (!failure && waitpid(child, status, 0) < 0)
        if (errno != EINTR) failure = errno;
    if (errors >= 0) {
        // The writing end went with the child; what is left in the pipe is read to its end.
        while (pass_on(errors, &reports)) {
        }
        close(errors);
    }
    if (!reports.is_crash || failure || !WIFSIGNALED(*status)) show(&reports);
    return failure ? -failure : late;
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
    is_forked = 1;
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
