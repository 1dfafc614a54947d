/*
 * wrap_info.c - malloc_trim, mallinfo and malloc_stats: ours plus the C
 * library's own, which holds what the lanes refuse. With musl only malloc_trim
 * exists.
 *
 * Tested by tests/wrap/behaviour.c.
 */
#include <malloc.h>
#include <unistd.h>

#include "base/msg.h"
#include "libc_names/wrap.h"

HAK_API int malloc_trim(size_t pad);

int malloc_trim(size_t pad)
{
    int (*next)(size_t) = (int (*)(size_t))haki_libc_next("malloc_trim");
    bool ours = hak_trim() != 0;

    haki_libc_start();
    return (next != NULL && next(pad) != 0) || ours;
}

#ifdef __GLIBC__

HAK_API struct mallinfo mallinfo(void);
HAK_API void malloc_stats(void);

/*
 * arena: bytes held by the lanes up to ACE, of which uordblks are in use and
 * fordblks are not; hblks and hblkhd: blocks of the Huge lane, and their bytes.
 */
static void wrap_add_ours(struct mallinfo2 *info)
{
    hak_stats_t stats = {.size = sizeof(stats)};
    size_t held, live;

    hak_stats(&stats);
    held = stats.tiny_held_bytes + stats.pool_held_bytes + stats.ace_held_bytes;
    live = stats.tiny_live_bytes + stats.pool_live_bytes + stats.ace_live_bytes;
    /* They are counted one after the other while other threads go on. */
    held = haki_max(held, live);
    info->arena += held;
    info->uordblks += live;
    info->fordblks += held - live;
    info->hblks += stats.huge_allocs - stats.huge_frees;
    info->hblkhd += stats.huge_live_bytes;
}

struct mallinfo2 mallinfo2(void)
{
    struct mallinfo2 (*next)(void) =
        (struct mallinfo2(*)(void))haki_libc_next("mallinfo2");
    struct mallinfo2 info = {0};

    if (next != NULL) {
        haki_libc_start();
        info = next();
    }
    wrap_add_ours(&info);
    return info;
}

/* The same in ints, which wrap around above 2 GB, as glibc's do. */
struct mallinfo mallinfo(void)
{
    struct mallinfo2 wide = mallinfo2();

    return (struct mallinfo){
        .arena = (int)wide.arena,
        .ordblks = (int)wide.ordblks,
        .smblks = (int)wide.smblks,
        .hblks = (int)wide.hblks,
        .hblkhd = (int)wide.hblkhd,
        .usmblks = (int)wide.usmblks,
        .fsmblks = (int)wide.fsmblks,
        .uordblks = (int)wide.uordblks,
        .fordblks = (int)wide.fordblks,
        .keepcost = (int)wide.keepcost,
    };
}

void malloc_stats(void)
{
    void (*next)(void) = (void (*)(void))haki_libc_next("malloc_stats");
    char text[8192];
    size_t length = hak_stats_table(text, sizeof(text));

    haki_msg_write(STDERR_FILENO, text, haki_min(length, sizeof(text) - 1));
    if (next != NULL) {
        haki_libc_start();
        next();
    }
}

#endif /* __GLIBC__ */
