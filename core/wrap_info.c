/*
 * wrap_info.c - malloc_trim, mallinfo and malloc_stats: ours and, since what
 * the lanes refuse is there, the C library's own on top.
 */
#include <malloc.h>
#include <unistd.h>

#include "msg.h"
#include "wrap.h"

HAK_API int malloc_trim(size_t pad);
HAK_API struct mallinfo2 mallinfo2(void);
HAK_API struct mallinfo mallinfo(void);
HAK_API void malloc_stats(void);

int malloc_trim(size_t pad)
{
    int (*next)(size_t) = (int (*)(size_t))hak_libc_next("malloc_trim");
    bool ours = hak_trim() != 0;

    return (next != NULL && next(pad) != 0) || ours;
}

/* arena: from the system; uordblks: in use; fordblks: the rest of it. */
struct mallinfo2 mallinfo2(void)
{
    struct mallinfo2 (*next)(void) =
        (struct mallinfo2(*)(void))hak_libc_next("mallinfo2");
    struct mallinfo2 info = {0};
    hak_stats_t stats = {.size = sizeof(stats)};
    size_t live;

    if (next != NULL) {
        info = next();
    }
    hak_stats(&stats);
    live = stats.tiny_live_bytes;
    info.arena += stats.populated_bytes;
    info.uordblks += live;
    if (stats.populated_bytes > live) {
        info.fordblks += stats.populated_bytes - live;
    }
    return info;
}

/* The same in ints, which wrap around above 2 GB as glibc's do. */
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
    void (*next)(void) = (void (*)(void))hak_libc_next("malloc_stats");
    char text[8192];
    size_t length = hak_min(hak_stats_text(text, sizeof(text)), sizeof(text));
    ssize_t ignored = write(hak_msg_fd(), text, length);

    (void)ignored;
    if (next != NULL) {
        next();
    }
}
