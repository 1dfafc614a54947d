/*
 * sleep.c - makes the program call a function before it sleeps.
 *
 * A master has no event loop: between signals it is in sigsuspend, which it
 * calls through a slot of its own, as it calls malloc. No other object's slot
 * is touched, and this one is not among those that hak_ngx_patch writes and
 * hak_ngx_unpatch restores.
 */
#include <dlfcn.h>
#include <signal.h>
#include <string.h>

#include "patch.h"
#include "slots.h"

static void (*before)(void);

/*
 * Looked up with dlsym: we may be part of the program, whose slot is ours then.
 */
static int (*really)(const sigset_t *mask);
static bool is_done;

/*
 * Signals are blocked here, so none is lost: libc's sigsuspend unblocks them.
 */
static int sleep_after(const sigset_t *mask)
{
    before();
    return really(mask);
}

static bool is_sleep(const struct hak_ngx_elf *program,
                     const struct hak_ngx_reloc *reloc)
{
    return reloc->kind == HAK_NGX_SLOT && reloc->imported &&
           strcmp(reloc->name, "sigsuspend") == 0 &&
           hak_ngx_elf_has(program, reloc->at, true);
}

static bool take(const struct hak_ngx_elf *program)
{
    hak_ngx_function *ours = (hak_ngx_function *)sleep_after;
    struct hak_ngx_reloc reloc;
    bool taken = false;

    for (unsigned table = 0; table < 2; table++) {
        for (size_t i = 0; i < program->tables[table].count; i++) {
            if (hak_ngx_elf_reloc(program, table, i, &reloc) &&
                is_sleep(program, &reloc) &&
                hak_ngx_slot_write(program, (hak_ngx_function **)reloc.at,
                                   ours)) {
                taken = true;
            }
        }
    }
    return taken;
}

/* The first entry of the list is the program. */
static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct hak_ngx_elf program;
    const char *why;

    (void)size;
    (void)arg;
    is_done = hak_ngx_elf_open(&program, info, &why) && take(&program);
    return 1;
}

bool hak_ngx_before_sleep(void (*work)(void))
{
    before = work;
    if (really == NULL) {
        *(void **)&really = dlsym(RTLD_DEFAULT, "sigsuspend");
    }
    if (!is_done && really != NULL) {
        dl_iterate_phdr(look, NULL);
    }
    return is_done;
}
