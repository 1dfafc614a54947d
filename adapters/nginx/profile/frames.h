/*
 * frames.h - the frames of a sample in an nginx worker; independent of nginx.
 *
 * A stack reads, root first:
 *
 *     nginx
 *     what the worker is about, in words: scene.c tells
 *     the module that asked for the memory, if it is an object of its own
 *     C functions, from what nginx called for the scene on
 *
 * nginx's own loop, and what else lies between main and the scene, is the same
 * for all and left out: a function that calls on behalf of a scene is in
 * HAK_NGX_CALLS, a section, and the walk ends at the first return address in
 * there. The module is found without a lock (_dl_find_object), as the unwinder
 * finds its tables: a sample may be due while the thread is in dlopen.
 *
 * The thread that called hak_ngx_frames_begin has scenes, others have none.
 */
#ifndef HAK_NGX_FRAMES_H
#define HAK_NGX_FRAMES_H

#include <stdbool.h>
#include <stddef.h>

#define HAK_NGX_CALLS __attribute__((section("hak_ngx_calls"), noinline))

#define HAK_NGX_WORDS 3
#define HAK_NGX_WORD 200

/* Words, root first, of printable ASCII; shorter than HAK_NGX_WORD. */
struct hak_ngx_scene {
    unsigned count;
    char word[HAK_NGX_WORDS][HAK_NGX_WORD];
};

/*
 * Tells the scene of the calling thread. Called inside an allocation: it must
 * not allocate, wait or change anything that its callers have in hand.
 */
typedef void hak_ngx_tell_fn(struct hak_ngx_scene *scene);

/*
 * From now on samples have such frames. `modules`: an address in each object that
 * is a module's, n of them; those beyond HAK_NGX_MODULES are told only if no other
 * object is nearer. May be called again.
 */
#define HAK_NGX_MODULES 128
void hak_ngx_frames_begin(hak_ngx_tell_fn *tell, const void *const *modules,
                          size_t n);

/*
 * Sets the rate, bytes a sample, at once for the calling thread; 0: off. False:
 * there is no memory for it.
 */
bool hak_ngx_frames_rate(size_t rate);

/* Writes what HAKMEM_PROFILE asks for: nginx is about to unload its modules, and
 * with them go the names. */
void hak_ngx_frames_write(void);

#endif /* HAK_NGX_FRAMES_H */
