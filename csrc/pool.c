/* A small pool of threads, and memory for each.
 *
 * Whoever has work opens the gate, works on it himself and closes the gate; workers that come through in the
 * meantime help. Only those who came through are waited for: a worker that is asleep, or that the system has
 * not let run, delays nobody.
 */
#include "minilm.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("isb")
#else
#define PAUSE() ((void)0)
#endif

enum {
    MOST_THREADS = 1024,
    CLOSED = 1 << 20, /* a bit of the gate; those below it count the workers inside */
    SPINS = 20000,    /* most of a millisecond: longer than Python's part between two kernels of a step */
};

static struct {
    pthread_mutex_t owner; /* held by the thread whose work is being done */

    void (*task)(void *, size_t); /* the work; written while the gate is closed and nobody is inside */
    void *context;
    size_t tasks;
    atomic_size_t next;
    atomic_int gate;

    atomic_uint round; /* counts the works, so that a worker knows a new one */
    atomic_int threads, workers, asleep;
    pthread_mutex_t sleep;
    pthread_cond_t wake;
} pool = {
    .owner = PTHREAD_MUTEX_INITIALIZER,
    .gate = CLOSED,
    .threads = 1,
    .sleep = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
};

static _Thread_local bool alone; /* whether this thread shares its work with no other */

static void take_tasks(void) {
    size_t i;
    while ((i = atomic_fetch_add(&pool.next, 1)) < pool.tasks) pool.task(pool.context, i);
}

/* The i-th wait of a loop. Whoever is waited for may in turn be waiting for this very processor: now and then
 * it is offered to others. */
static void wait_a_little(int i) {
    if (i % 32 == 31)
        sched_yield();
    else
        PAUSE();
}

/* Wait for another round than `seen`: awake for a moment, then asleep. */
static unsigned next_round(unsigned seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&pool.round) != seen) return atomic_load(&pool.round);
        wait_a_little(i);
    }
    pthread_mutex_lock(&pool.sleep);
    atomic_fetch_add(&pool.asleep, 1);
    while (atomic_load(&pool.round) == seen) pthread_cond_wait(&pool.wake, &pool.sleep);
    atomic_fetch_sub(&pool.asleep, 1);
    pthread_mutex_unlock(&pool.sleep);
    return atomic_load(&pool.round);
}

static void *worker(void *number) {
    unsigned seen = 0;
    for (;;) {
        seen = next_round(seen);
        if ((int)(intptr_t)number >= atomic_load(&pool.threads)) continue; /* fewer threads are wanted now */
        if (!(atomic_fetch_add(&pool.gate, 1) & CLOSED)) take_tasks();
        atomic_fetch_sub(&pool.gate, 1);
    }
    return NULL;
}

/* Bring the workers up to the number wanted; with fewer than that, should the system refuse. */
static void hire(int wanted) {
    int have = atomic_load(&pool.workers);
    if (have >= wanted) return;
    sigset_t all, before; /* signals are for Python's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; have < wanted; have++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(intptr_t)(have + 1))) break;
        pthread_detach(thread);
    }
    atomic_store(&pool.workers, have);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void minilm_parallel(size_t tasks, void (*task)(void *, size_t), void *context) {
    int threads = minilm_get_num_threads();
    if (tasks < 2 || threads < 2 || pthread_mutex_trylock(&pool.owner)) {
        for (size_t i = 0; i < tasks; i++) task(context, i);
        return;
    }
    hire(threads - 1);
    for (int i = 0; atomic_load(&pool.gate) != CLOSED; i++) wait_a_little(i); /* one who came too late is leaving */
    pool.task = task;
    pool.context = context;
    pool.tasks = tasks;
    atomic_store(&pool.next, 0);
    atomic_fetch_and(&pool.gate, ~CLOSED);
    atomic_fetch_add(&pool.round, 1);
    if (atomic_load(&pool.asleep)) {
        pthread_mutex_lock(&pool.sleep);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.sleep);
    }
    take_tasks();
    atomic_fetch_or(&pool.gate, CLOSED);
    for (int i = 0; atomic_load(&pool.gate) != CLOSED; i++) wait_a_little(i);
    pthread_mutex_unlock(&pool.owner);
}

void minilm_set_num_threads(int count) { atomic_store(&pool.threads, count < MOST_THREADS ? count : MOST_THREADS); }

int minilm_get_num_threads(void) { return alone ? 1 : atomic_load(&pool.threads); }

void minilm_compute_alone(void) { alone = true; }

/* --- memory ------------------------------------------------------------------------------------------ */

typedef struct {
    void *memory[2];
    size_t bytes[2];
} workspace;

static pthread_key_t workspaces;

static void release(void *value) {
    workspace *w = value;
    for (int which = 0; which < 2; which++) free(w->memory[which]);
    free(w);
}

static void *space(int which, size_t bytes) {
    workspace *w = pthread_getspecific(workspaces);
    if (!w) {
        w = calloc(1, sizeof *w);
        if (!w) return NULL;
        if (pthread_setspecific(workspaces, w)) {
            free(w);
            return NULL;
        }
    }
    if (bytes > w->bytes[which]) {
        free(w->memory[which]);
        w->bytes[which] = 0;
        if (posix_memalign(&w->memory[which], 64, bytes)) w->memory[which] = NULL;
        if (!w->memory[which]) return NULL;
        w->bytes[which] = bytes;
    }
    return w->memory[which];
}

void *minilm_workspace(size_t bytes) { return space(0, bytes); }

void *minilm_shared_workspace(size_t bytes) { return space(1, bytes); }

/* --- fork ---------------------------------------------------------------------------------------------- */

/* Only the thread that called fork lives on in the child: no worker, and no owner. */
static void after_fork(void) {
    pthread_mutex_init(&pool.owner, NULL);
    pthread_mutex_init(&pool.sleep, NULL);
    pthread_cond_init(&pool.wake, NULL);
    atomic_store(&pool.gate, CLOSED);
    atomic_store(&pool.round, 0);
    atomic_store(&pool.workers, 0);
    atomic_store(&pool.asleep, 0);
}

__attribute__((constructor)) static void prepare(void) {
    pthread_key_create(&workspaces, release);
    pthread_atfork(NULL, NULL, after_fork);
}

/* --- peak ---------------------------------------------------------------------------------------------- */

typedef struct {
    const minilm_kernels *kernels;
    double end;
    _Atomic double operations;
} race;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void compute_until_end(void *context, size_t thread) {
    (void)thread;
    race *r = context;
    double operations = 0;
    while (now() < r->end) operations += r->kernels->peak(2000);
    double sum = atomic_load(&r->operations);
    while (!atomic_compare_exchange_weak(&r->operations, &sum, sum + operations)) {
    }
}

double minilm_measure_peak(const minilm_kernels *kernels, double seconds) {
    double best = 0;
    for (int i = 0; i < 10; i++) {
        double start = now();
        race r = {.kernels = kernels, .end = start + seconds / 10};
        minilm_parallel((size_t)minilm_get_num_threads(), compute_until_end, &r);
        double rate = atomic_load(&r.operations) / (now() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}
