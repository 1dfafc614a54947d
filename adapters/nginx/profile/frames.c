/*
 * frames.c - the frames of a sample: see frames.h.
 *
 * Tested by tests/nginx/test_profile.py.
 */
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "embed.h"
#include "frames.h"

/* The linker's names for where the section begins and ends. */
extern const char calls_begin[] __asm__("__start_hak_ngx_calls")
    __attribute__((visibility("hidden")));
extern const char calls_end[] __asm__("__stop_hak_ngx_calls")
    __attribute__((visibility("hidden")));

#define ROOT "nginx"
#define DEEPER "[deeper than is told]"
#define OTHER_THREAD "thread"

/* Frames besides those of C: root, words, module, the mark of a deeper stack. */
#define BESIDES (HAK_NGX_WORDS + 3u)

static hak_ngx_tell_fn *frames_tell;
static pthread_t frames_thread;
static const struct link_map *frames_own, *frames_program, *frames_libc;
static const struct link_map *frames_module[HAK_NGX_MODULES];
static size_t frames_modules;

/* ---- objects ----------------------------------------------------------------- */

static const struct link_map *object_at(const void *at)
{
#if __GLIBC_PREREQ(2, 35)
    struct dl_find_object found;

    if (_dl_find_object((void *)(uintptr_t)at, &found) == 0) {
        return found.dlfo_link_map;
    }
#else
    (void)at;
#endif
    return NULL;
}

static bool is_module(const struct link_map *object)
{
    for (size_t i = 0; i < frames_modules; i++) {
        if (frames_module[i] == object) {
            return true;
        }
    }
    return false;
}

/*
 * The object to name: the module nearest to the leaf; where none of the frames is
 * a module's, another that is neither nginx nor libc. NULL: there is none.
 */
static const struct link_map *find_asker(const void *const *calls, unsigned n)
{
    const struct link_map *other = NULL;

    for (unsigned i = 0; i < n; i++) {
        const struct link_map *object = object_at(calls[i]);

        if (object == NULL || object == frames_program ||
            object == frames_libc) {
            continue;
        }
        if (is_module(object)) {
            return object;
        }
        if (other == NULL) {
            other = object;
        }
    }
    return other;
}

/* ---- the stack ---------------------------------------------------------------- */

struct walk {
    const void *call[HAK_STACK_PCS]; /* addresses in calling instructions */
    unsigned count;
    bool whole; /* as far as the scene, or main */
};

/* The calling thread's C frames, leaf first, without our own. The unwinder ends
 * where the scene begins, or in main. */
static void walk_calls(struct walk *walk, unsigned most)
{
    uintptr_t pc[HAK_STACK_PCS];
    unsigned room = (unsigned)haki_min(most, HAK_STACK_PCS);
    unsigned all = haki_unwind(pc, room, true);

    walk->count = 0;
    walk->whole = all < room;
    for (unsigned i = 0; i < all; i++) {
        const void *at = (const void *)(pc[i] - 1);

        if (frames_own == NULL || object_at(at) != frames_own) {
            walk->call[walk->count++] = at;
        }
    }
}

static void add_name(struct hak_frame *frames, unsigned *n, const char *name)
{
    frames[(*n)++] =
        (struct hak_frame){.function = haki_profile_name(name, strlen(name))};
}

static void add_object(struct hak_frame *frames, unsigned *n,
                       const struct link_map *object)
{
    const char *slash = strrchr(object->l_name, '/');

    add_name(frames, n, slash != NULL ? slash + 1 : object->l_name);
}

/* The core's haki_frames_fn. */
static unsigned frames_now(struct hak_heap *heap, struct hak_frame *frames,
                           unsigned most, size_t *below)
{
    const struct link_map *asker;
    struct hak_ngx_scene scene = {.count = 0};
    struct walk walk;
    unsigned n = 0;

    (void)heap;
    if (most <= BESIDES) {
        return 0;
    }
    walk_calls(&walk, most - BESIDES);
    for (unsigned i = 0; i < walk.count; i++) {
        haki_profile_frame_of_c(&frames[n++], walk.call[i]);
    }
    if (!walk.whole) {
        add_name(frames, &n, DEEPER);
    }
    asker = find_asker(walk.call, walk.count);
    if (asker != NULL) {
        add_object(frames, &n, asker);
    }
    if (pthread_equal(pthread_self(), frames_thread)) {
        frames_tell(&scene);
        for (unsigned i = scene.count; i-- > 0;) {
            add_name(frames, &n, scene.word[i]);
        }
    } else {
        add_name(frames, &n, OTHER_THREAD);
    }
    add_name(frames, &n, ROOT);
    *below = 0;
    return n;
}

/* ---- beginning ----------------------------------------------------------------- */

/* The program is the first in the loader's list. */
static const struct link_map *find_program(const struct link_map *any)
{
    while (any != NULL && any->l_prev != NULL) {
        any = any->l_prev;
    }
    return any;
}

void hak_ngx_frames_begin(hak_ngx_tell_fn *tell, const void *const *modules,
                          size_t n)
{
    static const struct hak_code none[HAK_UNWIND_SILENT];

    frames_own = object_at((void *)(uintptr_t)frames_now);
    frames_program = find_program(frames_own);
    frames_libc = object_at((void *)(uintptr_t)exit);
    frames_modules = 0;
    for (size_t i = 0; i < n && frames_modules < HAK_NGX_MODULES; i++) {
        const struct link_map *object = object_at(modules[i]);

        if (object != NULL && object != frames_own &&
            object != frames_program && !is_module(object)) {
            frames_module[frames_modules++] = object;
        }
    }
    haki_unwind_runtime((struct hak_code){(uintptr_t)calls_begin,
                                          (uintptr_t)calls_end},
                        none);
    frames_thread = pthread_self();
    frames_tell = tell;
    haki_profile_set_frames(frames_now, NULL);
}

bool hak_ngx_frames_rate(size_t rate)
{
    struct hak_heap *heap = haki_thread_own();

    if (!haki_profile_set(rate)) {
        return false;
    }
    if (heap != NULL) {
        haki_embed_draw(heap);
    }
    return true;
}

void hak_ngx_frames_write(void)
{
    haki_profiling_write_now();
}
