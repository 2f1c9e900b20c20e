/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few macros that every file may use: attributes, the cleanup idiom, assertions.
 *
 * Assertions stay on in release builds. They state what the programmer promises; input from
 * outside must have been refused, with a clear error, before it can reach one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))
#define UNUSED __attribute__((unused))
#define HOT __attribute__((hot))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Runs fn(&variable) when the variable leaves scope. fn must accept a zeroed or NULL object. */
#define AUTO(fn) __attribute__((cleanup(fn)))

/* Defines static inline void NAME##p(type **p), for use with AUTO on an owned pointer. */
#define DEFINE_AUTO_PTR(type, free_fn)             \
    static inline UNUSED void free_fn##p(type **p) \
    {                                              \
        free_fn(*p);                               \
    }

/* Takes what *pp holds and leaves NULL behind: how an AUTO variable is handed out. */
#define TAKE(p)                        \
    ({                                 \
        __typeof__(p) take_tmp_ = (p); \
        (p) = NULL;                    \
        take_tmp_;                     \
    })

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CLAMP(x, lo, hi) ((x) < (lo) ? (lo) : (x) > (hi) ? (hi) : (x))

/* Finds the struct that embeds *ptr as its member. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define ASSERT(cond)                                            \
    do {                                                        \
        if (UNLIKELY(!(cond)))                                  \
            assert_failed(#cond, __FILE__, __LINE__, __func__); \
    } while (0)

/* Prints the broken assertion and a backtrace to stderr and aborts. */
_Noreturn void assert_failed(const char *cond, const char *file, int line, const char *func);

/*
 * Thread roles. A function says which role may call it, and clang's thread-safety analysis holds
 * callers to it; gcc sees nothing. A callback reached through a function pointer, which the
 * analysis cannot follow, starts with ROLE_ASSERT(role).
 *
 *   on_loop     an event-loop thread of the gateway, or the one loop of the control process
 *   on_keeper   the record keeper of the gateway: drains rings, writes segments, folds cells
 *   on_worker   a pool thread: pure computing and blocking calls (model load, SQL, flow steps)
 *   on_control  the control thread: monitors, plan compilation, rollout judgement
 */
#ifdef __clang__
#define ROLE_CAPABILITY(name) __attribute__((capability(name)))
#define RUNS_ON(role) __attribute__((requires_capability(role)))
#define ROLE_ASSERT(role) role_assert_##role()
#define ROLE_ASSERT_ATTR(role) __attribute__((assert_capability(role)))
#else
#define ROLE_CAPABILITY(name)
#define RUNS_ON(role)
#define ROLE_ASSERT(role) ((void)0)
#define ROLE_ASSERT_ATTR(role)
#endif

struct ROLE_CAPABILITY("role") role {
    char unused;
};
extern struct role on_loop, on_keeper, on_worker, on_control;
static inline UNUSED void role_assert_on_loop(void) ROLE_ASSERT_ATTR(on_loop)
{
}
static inline UNUSED void role_assert_on_keeper(void) ROLE_ASSERT_ATTR(on_keeper)
{
}
static inline UNUSED void role_assert_on_worker(void) ROLE_ASSERT_ATTR(on_worker)
{
}
static inline UNUSED void role_assert_on_control(void) ROLE_ASSERT_ATTR(on_control)
{
}
