// Processes, threads and signals.
#pragma once
#include <stddef.h>
#include <stdint.h>

// Starts a detached-on-exit thread that runs body(argument). The handle is for strata_thread_join. Negative errno on failure.
int strata_thread_start(uint64_t *handle, const char *name, void (*body)(void *), void *argument);
void strata_thread_join(uint64_t handle);
// Whether this process is a child that strata_fork_limited or strata_daemonize has made.
//
// The thread that such a child begins with must not run Swift code beside other threads: Swift's locks know a thread by the kernel's number, each thread
// remembers its own, and this one remembers the number that its parent had. Who waits for a lock of a thread that is not there never gets it.
int strata_is_forked(void);
// Runs body(argument) on a new thread, which takes this one's place until it ends: signals go there. Negative errno on failure.
int strata_run_elsewhere(void (*body)(void *), void *argument);
// The kernel's number of the calling thread; that of the first thread is the process's.
int strata_thread_id(void);
// How many columns a terminal has; 0 when it is none or does not say.
int strata_terminal_columns(int fd);

// A new pseudo terminal: returns its controlling side, non-blocking, and stores the path of the other. Negative errno on failure.
int strata_open_terminal(char *path, size_t size);

// Makes the process ignore SIGPIPE: a peer that goes away is an error on its own connection only.
void strata_ignore_sigpipe(void);
// Makes the process ignore SIGXFSZ: a file that would grow beyond the limit is an error of the call, EFBIG.
void strata_ignore_sigxfsz(void);
// Blocks the signals in every thread started later and returns a descriptor that becomes readable when one arrives.
int strata_signal_descriptor(const int *signals, int count);
// Takes the number of one arrived signal, or 0.
int strata_take_signal(int fd);

// From now on SIGUSR1 does no more than to be noted.
void strata_note_user_signal(void);
// Whether SIGUSR1 has come since the last call.
int strata_take_user_signal(void);
// From now on SIGINT, SIGTERM and SIGHUP write this text to standard error before they end the process. The text is copied; NULL takes it back.
void strata_set_last_words(const char *text);
// Forks, for a child with so many bytes of private writable memory at most (0: as many as there are) that ends with its parent.
// Returns 0 in the child, its number in the parent, a negative errno on failure. Call before any thread exists. What a child with a limit on its memory
// writes to standard error comes through `errors`, a descriptor for strata_wait_limited; -1 for others.
int strata_fork_limited(uint64_t memory, int *errors);
// Waits for the child and stores its wait status. One that still runs after so many milliseconds (negative: no limit) is killed, and then the result is 1,
// else 0. SIGUSR1 is handed on to it. What comes out of `errors` goes to standard error; when a signal has ended the child, its report of that does not.
// Negative errno on failure.
int strata_wait_limited(int child, int errors, int64_t milliseconds, int *status);
// Detaches from the terminal as daemon(3) does, but keeps the parent waiting: it exits 0 once the child calls strata_daemon_ready, else 1.
// Returns the descriptor for strata_daemon_ready in the child, or a negative errno. Call before any thread exists.
int strata_daemonize(void);
void strata_daemon_ready(int fd);
