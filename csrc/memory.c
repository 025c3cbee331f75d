/* Memory for results, used again.
 *
 * A training step makes the same arrays as the step before. Where each goes back to the system when it is dropped,
 * the next one's pages must be fetched, and cleared, anew: 3 microseconds for 4 KB on a virtual machine, where adding
 * two arrays of 4 KB takes 0.15. So released blocks wait here, by size, for the next of their kind, up to a cap.
 */
#include "minilm.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum {
    STEPS = 8, /* sizes between a power of two and the next, so that at most an eighth of a block is not asked for */
    CLASSES = 48 * STEPS,
    HUGE_PAGE = 1 << 21,
};

/* Where AddressSanitizer watches, each block is the system's own, and just as large as was asked: nothing waits. */
#if defined(__SANITIZE_ADDRESS__)
#define CHECKED true
#else
#define CHECKED false
#endif

typedef struct waiting {
    struct waiting *next;
} waiting; /* written into the block itself */

static struct {
    pthread_mutex_t lock;
    waiting *blocks[CLASSES];
    size_t held, cap;   /* bytes waiting; how many may */
    size_t given, reused; /* blocks, ever */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The class of a size, and the size of its blocks; CLASSES if there is none so large. */
static size_t class_of(size_t bytes, size_t *rounded) {
    size_t power = 4096, class = 0;
    while (power <= SIZE_MAX / 4 && power * 2 <= bytes) power *= 2, class += STEPS;
    size_t step = power / STEPS, steps = bytes <= power ? 0 : (bytes - power + step - 1) / step;
    *rounded = power + steps * step;
    return *rounded < bytes ? CLASSES : class + steps;
}

static void *fresh(size_t bytes) {
    void *block = NULL;
    if (posix_memalign(&block, bytes >= HUGE_PAGE ? HUGE_PAGE : 64, bytes)) return NULL;
#if defined(MADV_HUGEPAGE)
    if (bytes >= HUGE_PAGE) (void)madvise(block, bytes, MADV_HUGEPAGE); /* fewer pages to fetch and to look up */
#endif
    return block;
}

/* Give everything that waits back to the system. The lock is held. */
static void empty_all(void) {
    for (size_t class = 0; class < CLASSES; class++)
        while (pool.blocks[class]) {
            waiting *block = pool.blocks[class];
            pool.blocks[class] = block->next;
            free(block);
        }
    pool.held = 0;
}

void *minilm_allocate(size_t bytes) {
    size_t rounded, class = class_of(bytes, &rounded);
    if (class >= CLASSES) return NULL;
    pthread_mutex_lock(&pool.lock);
    waiting *block = pool.blocks[class];
    pool.given++;
    if (block) {
        pool.blocks[class] = block->next;
        pool.held -= rounded;
        pool.reused++;
    }
    pthread_mutex_unlock(&pool.lock);
    if (block) return block;
    size_t size = CHECKED ? bytes : rounded;
    void *made = fresh(size);
    if (!made) { /* what waits in other sizes may be what is missing */
        minilm_trim();
        made = fresh(size);
    }
    return made;
}

void minilm_release(void *block, size_t bytes) {
    size_t rounded, class = class_of(bytes, &rounded);
    pthread_mutex_lock(&pool.lock);
    bool keep = !CHECKED && rounded <= pool.cap;
    if (keep) {
        if (pool.held > pool.cap - rounded) empty_all(); /* another phase has begun: what waits fits it no more */
        ((waiting *)block)->next = pool.blocks[class];
        pool.blocks[class] = block;
        pool.held += rounded;
    }
    pthread_mutex_unlock(&pool.lock);
    if (!keep) free(block);
}

void minilm_trim(void) {
    pthread_mutex_lock(&pool.lock);
    empty_all();
    pthread_mutex_unlock(&pool.lock);
}

void minilm_set_memory_cap(size_t bytes) {
    pthread_mutex_lock(&pool.lock);
    pool.cap = bytes;
    if (pool.held > bytes) empty_all();
    pthread_mutex_unlock(&pool.lock);
}

void minilm_memory(size_t *held, size_t *cap, size_t *given, size_t *reused) {
    pthread_mutex_lock(&pool.lock);
    *held = pool.held, *cap = pool.cap, *given = pool.given, *reused = pool.reused;
    pthread_mutex_unlock(&pool.lock);
}

/* fork must not copy a list that another thread is changing. */
static void before_fork(void) { pthread_mutex_lock(&pool.lock); }
static void after_fork(void) { pthread_mutex_unlock(&pool.lock); }

__attribute__((constructor)) static void prepare(void) {
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    pool.cap = pages > 0 && size > 0 ? (size_t)pages / 4 * (size_t)size : (size_t)1 << 30; /* a quarter of the memory */
    pthread_atfork(before_fork, after_fork, after_fork);
}
