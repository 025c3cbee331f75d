/* The pool of threads, alone: every task is run exactly once, by whoever calls, with any number of threads.
 *
 *     cc -pthread -Icsrc tests/csrc/pool_test.c csrc/pool.c -o pool_test && ./pool_test
 *
 * Ends by itself in a few seconds, with 0 if all is well. -fsanitize=thread looks for races besides: that no
 * two threads meet at a number without order between them. tests/sanitize.sh does so.
 */
#include "minilm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define UNDER_THREAD_SANITIZER 1 /* it lets no child of several threads start threads, and takes longer */
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_THREAD_SANITIZER 1
#endif
#endif
#ifndef UNDER_THREAD_SANITIZER
#define UNDER_THREAD_SANITIZER 0
#endif

enum { MOST_TASKS = 257, CALLERS = 4, ROUNDS = UNDER_THREAD_SANITIZER ? 300 : 1500 };

static const int THREADS[] = {1, 2, 3, 5, 8};
enum { THREAD_COUNTS = sizeof THREADS / sizeof *THREADS };

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

static void sleep_us(int us) {
    struct timespec time = {.tv_nsec = us * 1000L};
    nanosleep(&time, NULL);
}

/* --- one piece of work ------------------------------------------------------------------------------- */

/* Plain numbers on purpose: the pool alone keeps the threads apart, and has them seen when it returns. */
typedef struct {
    int times[MOST_TASKS];
    size_t sum[MOST_TASKS];
    size_t add;
} work;

static void count(void *context, size_t i) {
    work *w = context;
    w->times[i]++;
    w->sum[i] = i + w->add;
}

static void call(work *w, size_t tasks, size_t add) {
    memset(w, 0, sizeof *w);
    w->add = add;
    minilm_parallel(tasks, count, w);
    for (size_t i = 0; i < MOST_TASKS; i++) {
        CHECK(w->times[i] == (i < tasks));
        CHECK(w->sum[i] == (i < tasks ? i + add : 0));
    }
}

static void many_rounds(void) {
    static const size_t TASKS[] = {0, 1, 2, 3, 7, 64, MOST_TASKS};
    work w;
    for (int t = 0; t < THREAD_COUNTS; t++) {
        minilm_set_num_threads(THREADS[t]);
        CHECK(minilm_get_num_threads() == THREADS[t]);
        for (size_t round = 0; round < ROUNDS; round++) call(&w, TASKS[round % 7], round);
    }
}

/* --- several callers, and a number of threads that changes meanwhile ---------------------------------- */

static void *caller(void *number) {
    work *w = malloc(sizeof *w);
    CHECK(w);
    for (size_t round = 0; round < ROUNDS; round++) {
        call(w, 1 + (round * 31 + (size_t)(intptr_t)number) % MOST_TASKS, round);
        if (number == NULL && round % 8 == 0) minilm_set_num_threads(THREADS[round / 8 % THREAD_COUNTS]);
    }
    free(w);
    return NULL;
}

static void callers_at_once(void) {
    pthread_t threads[CALLERS];
    for (intptr_t i = 0; i < CALLERS; i++) CHECK(!pthread_create(&threads[i], NULL, caller, (void *)i));
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
}

/* --- a task that has work of its own ------------------------------------------------------------------- */

static void nested(void *context, size_t i) {
    work w;
    call(&w, 5 + i, i);
    ((int *)context)[i]++;
}

static void tasks_within_tasks(void) {
    minilm_set_num_threads(3);
    for (int round = 0; round < ROUNDS / 20; round++) {
        int times[16] = {0};
        minilm_parallel(16, nested, times);
        for (int i = 0; i < 16; i++) CHECK(times[i] == 1);
    }
}

/* --- workers that have fallen asleep -------------------------------------------------------------------- */

typedef struct {
    atomic_int inside;
    atomic_bool met;
} meeting;

/* Waits, for a second at most, until two threads are in here at once. */
static void meet(void *context, size_t i) {
    (void)i;
    meeting *m = context;
    if (atomic_fetch_add(&m->inside, 1) > 0) atomic_store(&m->met, true);
    for (int ms = 0; ms < 1000 && !atomic_load(&m->met); ms++) sleep_us(1000);
    atomic_fetch_sub(&m->inside, 1);
}

static void sleepers_are_woken(void) {
    minilm_set_num_threads(2);
    for (int round = 0; round < 10; round++) {
        meeting m = {0};
        sleep_us(10000); /* far beyond the time for which a worker stays awake */
        minilm_parallel(2, meet, &m);
        CHECK(atomic_load(&m.met));
    }
}

/* --- a thread that shares with no other ------------------------------------------------------------------ */

/* Every task is the calling thread's. */
static void mine(void *context, size_t i) {
    (void)i;
    CHECK(pthread_equal(*(pthread_t *)context, pthread_self()));
    sleep_us(100);
}

static void *alone(void *nothing) {
    work w;
    pthread_t self = pthread_self();
    minilm_compute_alone();
    CHECK(minilm_get_num_threads() == 1);
    for (size_t round = 0; round < ROUNDS / 20; round++) {
        call(&w, MOST_TASKS, round);
        minilm_parallel(3, mine, &self);
    }
    return nothing;
}

static void threads_that_compute_alone(void) {
    pthread_t threads[CALLERS];
    minilm_set_num_threads(3);
    for (int i = 0; i < CALLERS; i++) CHECK(!pthread_create(&threads[i], NULL, alone, NULL));
    sleepers_are_woken(); /* those beside them share as before */
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    CHECK(minilm_get_num_threads() == 2);
}

/* Sleepers wake up while a later work is being prepared, or after it is done: they must keep out of it. */
static void latecomers(void) {
    work w;
    minilm_set_num_threads(5);
    for (size_t round = 0; round < ROUNDS / 4; round++) {
        if (round % 2) sleep_us(200);
        memset(&w, 0, sizeof w);
        for (int i = 1; i <= 200; i++) {
            minilm_parallel(2, count, &w); /* nothing else between two works */
            CHECK(w.times[0] == i && w.times[1] == i);
        }
    }
}

/* --- memory of each thread ------------------------------------------------------------------------------ */

static void fill(void *context, size_t i) {
    size_t bytes = 64 << (i % 5);
    unsigned char *memory = minilm_workspace(bytes);
    CHECK(memory && (uintptr_t)memory % 64 == 0);
    memset(memory, (int)i, bytes);
    for (size_t j = 0; j < bytes; j++) CHECK(memory[j] == (unsigned char)i);
    ((int *)context)[i]++;
}

static void workspaces(void) {
    minilm_set_num_threads(5);
    for (int round = 0; round < ROUNDS / 10; round++) {
        int times[40] = {0};
        minilm_parallel(40, fill, times);
        for (int i = 0; i < 40; i++) CHECK(times[i] == 1);
    }
}

static void memory_that_there_is_not(void) {
    CHECK(minilm_workspace(100));
    CHECK(!minilm_workspace(SIZE_MAX));
    CHECK(!minilm_workspace(SIZE_MAX - 63));
    CHECK(minilm_workspace(100)); /* a refusal does not outlast the call */
}

/* --- fork ------------------------------------------------------------------------------------------------ */

/* The child has one thread, and nobody else's locks: it computes, and its children do. */
static void children(int depth) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child) {
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        return;
    }
    work w;
    for (size_t round = 0; round < 50; round++) call(&w, MOST_TASKS, round);
    sleepers_are_woken(); /* workers of its own */
    if (depth > 1) children(depth - 1);
    _exit(0);
}

static atomic_bool enough;

static void *busy(void *unused) {
    work w;
    for (size_t round = 0; !atomic_load(&enough); round++) call(&w, MOST_TASKS, round);
    return unused;
}

/* Also while the pool is at work for somebody who does not exist in the child. */
static void fork_after_use(void) {
    minilm_set_num_threads(3);
    children(2);
    pthread_t other;
    CHECK(!pthread_create(&other, NULL, busy, NULL));
    for (int i = 0; i < 10; i++) children(1);
    atomic_store(&enough, true);
    pthread_join(other, NULL);
}

/* --- peak ------------------------------------------------------------------------------------------------- */

static double a_step(size_t steps) { return (double)steps; }

static void peak(void) {
    static const minilm_kernels kernels = {.name = "none", .peak = a_step};
    minilm_set_num_threads(2);
    CHECK(minilm_measure_peak(&kernels, 0.05) > 0);
}

int main(void) {
    many_rounds();
    callers_at_once();
    tasks_within_tasks();
    sleepers_are_woken();
    threads_that_compute_alone();
    latecomers();
    workspaces();
    memory_that_there_is_not();
    peak();
    if (!UNDER_THREAD_SANITIZER) fork_after_use();
    puts("ok");
    return 0;
}
