// Threads for tests that wait.
//
// Swift's own pool has one thread for each core. A test that waits for a program keeps one of them, and two such tests on two cores keep everybody from
// going on: the asynchronous tests beside them are late, and time limits stretch. Here jobs of the global executor run on more threads than tests run at
// once. The Swift runtime has a hook for this (swift/ABI: "swift_task_enqueueGlobal_hook"); the product is not linked with it.

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#define SWIFT_CALL __attribute__((swiftcall))

typedef struct Job Job;
typedef SWIFT_CALL void (*EnqueueOriginally)(Job *);
typedef struct { void *identity; uintptr_t implementation; } SerialExecutor;

extern SWIFT_CALL void (*swift_task_enqueueGlobal_hook)(Job *, EnqueueOriginally);
extern SWIFT_CALL void swift_job_run(Job *, SerialExecutor);

// More than tests run at once, with what each may start beside itself.
enum { mostThreads = 24 };

typedef struct Entry { Job *job; struct Entry *next; } Entry;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t hasJob = PTHREAD_COND_INITIALIZER;
static Entry *first, **end = &first;
static int queued, idle, threads;

static void *work(void *unused) {
    (void)unused;
    pthread_mutex_lock(&mutex);
    for (;;) {
        idle++;
        while (!first) pthread_cond_wait(&hasJob, &mutex);
        idle--;
        Entry *entry = first;
        first = entry->next;
        if (!first) end = &first;
        queued--;
        pthread_mutex_unlock(&mutex);
        Job *job = entry->job;
        free(entry);
        swift_job_run(job, (SerialExecutor){0, 0});
        pthread_mutex_lock(&mutex);
    }
    return NULL;
}

static SWIFT_CALL void enqueue(Job *job, EnqueueOriginally original) {
    (void)original;
    Entry *entry = malloc(sizeof *entry);
    if (!entry) abort();
    *entry = (Entry){job, NULL};
    pthread_mutex_lock(&mutex);
    *end = entry;
    end = &entry->next;
    queued++;
    if (queued > idle && threads < mostThreads) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL) == 0) {
            pthread_detach(thread);
            threads++;
        }
    }
    pthread_cond_signal(&hasJob);
    pthread_mutex_unlock(&mutex);
}

__attribute__((constructor)) static void install(void) { swift_task_enqueueGlobal_hook = enqueue; }
