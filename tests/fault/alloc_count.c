/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A preloaded library that counts the allocations of a running program, so that a test can say
 * "a request in steady state allocates nothing" of the real program, not of a build made for it.
 *
 *     WEIR_ALLOC_COUNT_DIR=dir LD_PRELOAD=liballoc_count.so weir …
 *
 * Each process maps the file dir/<pid> and keeps its live counters there: one slot per thread,
 * which any other program may read at any time (tests/support/alloc_count.py does). An allocation
 * counts as the program's own when the call comes from the code of the main executable; what the
 * engines' libraries allocate inside themselves is counted apart. Of the last own allocation the
 * place is kept, as an offset for addr2line: it names the culprit.
 *
 * Invariants:
 * 1. Counting never allocates, locks or calls the dynamic linker: the first allocation may come
 *    before any constructor has run. The real functions are glibc's own __libc_* names.
 * 2. A slot is written by its own thread alone. Threads past SLOTS_MAX share the last slot, whose
 *    counters are then approximate; a slot is not given back when its thread ends.
 *
 * It does not count free(), and it sees no allocator other than malloc's family.
 */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOTS_MAX 255
#define HEAD "weiralc1"

struct slot {
    uint64_t tid;
    uint64_t own;      /* calls from the main executable */
    uint64_t foreign;  /* calls from shared libraries */
    uint64_t own_last; /* offset in the executable behind the last own call */
};

struct page {
    char head[8];
    uint64_t slots_used;
    struct slot slots[SLOTS_MAX];
};

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

static struct page *page; /* NULL: not counting */
static uintptr_t code_from, code_to, load_base;
static __thread struct slot *my_slot __attribute__((tls_model("initial-exec")));

/* The first object is the main executable: notes where its code lies, then stops the walk. */
static int note_executable(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size, (void)arg;
    load_base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
            continue;
        code_from = load_base + segment->p_vaddr;
        code_to = code_from + segment->p_memsz;
    }
    return 1;
}

static void map_page(void)
{
    const char *dir = getenv("WEIR_ALLOC_COUNT_DIR");
    char path[512];
    struct page *p;
    int fd;

    if (!dir || snprintf(path, sizeof(path), "%s/%d", dir, getpid()) >= (int)sizeof(path))
        return;
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (ftruncate(fd, sizeof(struct page)) == 0) {
        p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p != MAP_FAILED) {
            memcpy(p->head, HEAD, sizeof(p->head));
            __atomic_store_n(&page, p, __ATOMIC_RELEASE);
        }
    }
    close(fd);
}

static void start_in_child(void)
{
    my_slot = NULL;
    page = NULL;
    map_page();
}

__attribute__((constructor)) static void start(void)
{
    int kept_errno = errno;

    dl_iterate_phdr(note_executable, NULL);
    map_page();
    pthread_atfork(NULL, NULL, start_in_child);
    errno = kept_errno;
}

static struct slot *slot_of_thread(struct page *p)
{
    uint64_t at = __atomic_fetch_add(&p->slots_used, 1, __ATOMIC_RELAXED);

    if (at >= SLOTS_MAX) {
        at = SLOTS_MAX - 1;
        __atomic_store_n(&p->slots_used, SLOTS_MAX, __ATOMIC_RELAXED);
    }
    my_slot = &p->slots[at];
    my_slot->tid = (uint64_t)syscall(SYS_gettid);
    return my_slot;
}

static inline void count(const void *caller)
{
    struct page *p = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    uintptr_t at = (uintptr_t)caller;
    struct slot *slot;

    if (!p)
        return;
    slot = my_slot ? my_slot : slot_of_thread(p);
    if (at >= code_from && at < code_to) {
        __atomic_store_n(&slot->own_last, at - load_base, __ATOMIC_RELAXED);
        __atomic_store_n(&slot->own, slot->own + 1, __ATOMIC_RELEASE);
    } else {
        __atomic_store_n(&slot->foreign, slot->foreign + 1, __ATOMIC_RELAXED);
    }
}

void *malloc(size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_calloc(n, bytes);
}

void *realloc(void *p, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_realloc(p, bytes);
}

void *memalign(size_t align, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_memalign(align, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_memalign(align, bytes);
}

int posix_memalign(void **ret_p, size_t align, size_t bytes)
{
    void *p;

    count(__builtin_return_address(0));
    if (align % sizeof(void *) || align & (align - 1) || align == 0)
        return EINVAL;
    p = __libc_memalign(align, bytes);
    if (!p)
        return ENOMEM;
    *ret_p = p;
    return 0;
}
