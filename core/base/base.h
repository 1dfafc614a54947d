/*
 * base.h - attributes, bits and the block link.
 *
 * Included by everything, includes nothing of ours.
 */
#ifndef HAK_BASE_H
#define HAK_BASE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HAK_LIKELY(x) __builtin_expect(!!(x), 1)
#define HAK_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define HAK_INLINE static inline __attribute__((always_inline))
#define HAK_NOINLINE __attribute__((noinline))
/* Data of ours that other files use: reached directly, not through the GOT. */
#define HAK_HIDDEN __attribute__((visibility("hidden")))
/*
 * Gives a public function a hidden name for calls from inside the core. Its
 * public name may lead to another core that was loaded into the process before
 * this one.
 */
#define HAK_INSIDE(inside, public)                                             \
    extern __typeof__(public) inside                                           \
        __attribute__((alias(#public), visibility("hidden")))
#define HAK_COLD __attribute__((noinline, cold))
/*
 * Code that starts a cache line. Otherwise its speed depends on whatever the
 * linker puts before it: up to 5 % of a malloc and a free.
 */
#define HAK_HOT __attribute__((aligned(64)))
/*
 * Starts a cache line, to keep what many threads read apart from what changes.
 */
#define HAK_OWN_LINE __attribute__((aligned(64)))
#define HAK_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#if defined(__SANITIZE_THREAD__)
#define HAK_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAK_TSAN 1
#endif
#endif

/*
 * A word that one thread writes while others read it: they see an old value or
 * a new one. All builds use the same atomics, so that the thread sanitizer
 * checks the program that ships. The exception is HAK_FOLD, the load of hot
 * paths: gcc and clang never fold an atomic load into the instruction that uses
 * it, so a free and a malloc would take 46.8 instructions instead of 43.8. A
 * plain load is as wide and as weakly ordered, but by the sanitizer's rules it
 * is a race, so sanitizer builds use HAK_LOAD there.
 */
#define HAK_LOAD(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define HAK_STORE(word, value)                                                 \
    __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)
#ifdef HAK_TSAN
#define HAK_FOLD(word) HAK_LOAD(word)
#else
#define HAK_FOLD(word) (word)
#endif

/*
 * Between two writes of a thread that another one's fork may cut off: the compiler
 * keeps them in program order, and that is enough on any processor. A forked child
 * sees exactly what the thread wrote up to some instruction: fork ends when no
 * processor has the old translations any more and what was written through them is
 * complete, and a write that comes after one that faults is not made.
 */
static inline __attribute__((always_inline)) void haki_step(void)
{
    __asm__ volatile("" ::: "memory");
}

/*
 * Orders earlier writes before later ones, in all builds. gcc's thread
 * sanitizer executes the fence but warns that it does not understand it. Ours
 * order writes for a forked child, which the sanitizer does not check.
 */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif
static inline __attribute__((always_inline)) void haki_fence_release(void)
{
    atomic_thread_fence(memory_order_release);
}

/*
 * Statistics are counted by the owning thread without atomics and read by
 * others at any time. Every counter is an aligned word that the machine
 * writes whole, so a reader sees an old or a new value; the thread sanitizer
 * is told that we mean it, on the reading side only.
 */
#define HAK_RACY_READER __attribute__((no_sanitize("thread")))

/* The same for functions to be inlined, where the attribute would be lost. */
#ifdef HAK_TSAN
#define HAK_RACY_INLINE                                                        \
    HAK_RACY_READER static HAK_NOINLINE __attribute__((unused))
#else
#define HAK_RACY_INLINE HAK_INLINE
#endif

__extension__ typedef unsigned __int128 hak_u128;

#define HAK_KIB ((size_t)1024)
#define HAK_MIB (1024 * HAK_KIB)
#define HAK_GIB (1024 * HAK_MIB)

#define HAK_PAGE ((size_t)4096)

/* A free block: its first word links to the next one. */
struct hak_block {
    struct hak_block *next;
};

/* n rounded up to a multiple of `to`, a power of two. */
HAK_INLINE size_t haki_round_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

HAK_INLINE bool haki_is_pow2(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

HAK_INLINE size_t haki_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

HAK_INLINE size_t haki_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif /* HAK_BASE_H */
