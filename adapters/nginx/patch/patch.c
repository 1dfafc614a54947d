/*
 * patch.c - makes the frees of all loaded objects ours, and has the chosen
 * objects served.
 *
 * All of it happens inside dl_iterate_phdr, which locks the dynamic linker's
 * list: nothing is unloaded meanwhile, and no two threads are here at once. An
 * object that another thread is loading may already be in the list while its
 * slots are not yet filled in: hence the repeated attempts of work_in_peace.
 *
 * The steps are, in this order: check the objects to be served (that all their
 * slots can be written); write the frees of every object; leave out objects
 * linked with one that can't be patched; write the slots of the rest.
 */
#include "patch.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loaded.h"
#include "slots.h"

/* What the last walk that wrote found. */
static struct {
    _Atomic(unsigned long long) loads; /* dlpi_adds; 0: there was none yet */
    _Atomic(unsigned) others, other_slots, unpatched;
    /* Under the list's lock. */
    unsigned long long unloads; /* dlpi_subs */
    char text[512];
    struct place {
        uintptr_t base, dynamic;
    } * places; /* of the objects it saw */
    size_t nplaces;
} last;

static unsigned long long loads_seen;

/*
 * This thread is in a walk. A walk calls functions of libc; a library that
 * wraps one of them may look up the real one, with a dlsym that is ours by now.
 */
static _Thread_local bool is_walking;

/* ---- one object ----------------------------------------------------------------- */

/*
 * What is done with an object's slots. FREES writes `any`, or leaves what is
 * already ours; SERVE writes `ours`; RETREAT undoes that. JUDGE only reads.
 */
enum task { JUDGE, FREES, SERVE, RETREAT };

static hak_ngx_function *wanted(const hak_ngx_name *name, enum task task)
{
    return task == FREES || task == RETREAT ? name->any : name->ours;
}

/* False: it can't be written. */
static bool put(struct hak_ngx_walk *walk, struct hak_ngx_loaded *one,
                hak_ngx_function **at, const hak_ngx_name *name, enum task task)
{
    bool has = *at == name->ours || *at == name->any;

    if (task == RETREAT) {
        return *at != name->ours || name->ours == name->any ||
               (name->any != NULL
                    ? hak_ngx_slot_take(&one->elf, at, name->any, false)
                    : hak_ngx_slot_give_back(at));
    }
    one->slots++;
    if (!walk->writes || *at == wanted(name, task) || (task == FREES && has)) {
        return true;
    }
    return hak_ngx_slot_take(&one->elf, at, wanted(name, task),
                             name->any == NULL);
}

/* False: *why; slots after the first that can't be written are unchanged. */
static bool work_on(struct hak_ngx_walk *walk, struct hak_ngx_loaded *one,
                    enum task task, char *why, size_t len)
{
    struct hak_ngx_reloc reloc;
    bool good = true;

    one->slots = 0;
    for (unsigned table = 0; table < 2; table++) {
        for (size_t i = 0; i < one->elf.tables[table].count; i++) {
            const hak_ngx_name *name;
            enum hak_ngx_verdict verdict;

            if (!hak_ngx_elf_reloc(&one->elf, table, i, &reloc) ||
                (name = hak_ngx_name_find(reloc.name)) == NULL ||
                (wanted(name, task) == NULL && task != RETREAT) ||
                !hak_ngx_concerns_us(&reloc, name)) {
                continue;
            }
            verdict =
                hak_ngx_judge(walk, one, &reloc, name, why, good ? len : 0);
            if (verdict == HAK_NGX_TAKE && task != JUDGE &&
                !put(walk, one, (hak_ngx_function **)reloc.at, name, task)) {
                snprintf(why, len, "a slot can't be written: %s",
                         strerror(errno));
                verdict = HAK_NGX_FAULT;
            }
            good = good && verdict != HAK_NGX_FAULT;
            /* Each free of an object is worth having, even if others fail. */
            if (!good && task != FREES && task != RETREAT) {
                return false;
            }
        }
    }
    return good;
}

static bool libc_defines(const struct hak_ngx_walk *walk, const char *name)
{
    for (size_t i = 0; i < walk->count; i++) {
        if (hak_ngx_is_libc(&walk->all[i].elf)) {
            return hak_ngx_elf_defines(&walk->all[i].elf, name);
        }
    }
    return false;
}

/*
 * Whether `one` imports a name that `other` defines. A program may have libc's
 * variables (stderr) through a copy relocation: these do not link objects.
 */
static bool imports_from(const struct hak_ngx_walk *walk,
                         const struct hak_ngx_loaded *one,
                         const struct hak_ngx_loaded *other)
{
    struct hak_ngx_reloc reloc;

    for (unsigned table = 0; table < 2; table++) {
        for (size_t i = 0; i < one->elf.tables[table].count; i++) {
            if (hak_ngx_elf_reloc(&one->elf, table, i, &reloc) &&
                reloc.imported &&
                hak_ngx_elf_defines(&other->elf, reloc.name) &&
                !libc_defines(walk, reloc.name)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- the steps ------------------------------------------------------------------- */

/*
 * Leaves an object out; the first of its files that is left out supplies the
 * reason.
 */
static void leave_out(struct hak_ngx_loaded *one, const char *text,
                      const char *detail)
{
    if (*one->object->why == '\0') {
        snprintf(one->object->why, sizeof(one->object->why), "%s: %s%s",
                 hak_ngx_printable(&one->elf), text, detail);
    }
    one->object = NULL;
}

static void judge_objects(struct hak_ngx_walk *walk)
{
    char why[120] = "";

    for (size_t i = 0; i < walk->count; i++) {
        struct hak_ngx_loaded *one = &walk->all[i];

        if (one->object != NULL && *one->unpatched != '\0') {
            leave_out(one, one->unpatched, "");
        } else if (one->object != NULL &&
                   !work_on(walk, one, JUDGE, why, sizeof(why))) {
            leave_out(one, why, "");
        }
    }
}

static void take_frees(struct hak_ngx_walk *walk)
{
    for (size_t i = 0; i < walk->count; i++) {
        struct hak_ngx_loaded *one = &walk->all[i];

        if (one->is_known || one->taboo || *one->unpatched != '\0') {
            continue;
        }
        if (!work_on(walk, one, FREES, one->unpatched,
                     sizeof(one->unpatched)) &&
            one->object != NULL) {
            leave_out(one, one->unpatched, "");
        }
    }
}

/* An object that already has blocks of ours can't be left out any more. */
static void leave_out_unsafe(struct hak_ngx_walk *walk)
{
    for (size_t i = 0; i < walk->count; i++) {
        const struct hak_ngx_loaded *bad = &walk->all[i];

        for (size_t j = 0; *bad->unpatched != '\0' && j < walk->count; j++) {
            struct hak_ngx_loaded *one = &walk->all[j];

            if (one->object != NULL && !hak_ngx_slots_serve(&one->elf) &&
                (imports_from(walk, bad, one) ||
                 imports_from(walk, one, bad))) {
                leave_out(one, "its blocks may be freed past us by ",
                          hak_ngx_printable(&bad->elf));
            }
        }
    }
}

static void serve(struct hak_ngx_walk *walk)
{
    char why[120];

    for (size_t i = 0; i < walk->count; i++) {
        struct hak_ngx_loaded *one = &walk->all[i];

        if (one->object == NULL) {
            continue;
        }
        if (work_on(walk, one, SERVE, why, sizeof(why))) {
            one->object->slots += one->slots;
        } else {
            leave_out(one, why, "");
            (void)work_on(walk, one, RETREAT, why, 0);
        }
    }
}

static void add_text(const char *file, const char *why)
{
    size_t used = strlen(last.text);

    snprintf(last.text + used, sizeof(last.text) - used, "%s%s: %s",
             used != 0 ? "; " : "", file, why);
}

/* A walk that only looks at new objects adds to what was found before. */
static void remember(const struct hak_ngx_walk *walk)
{
    bool is_first = walk->is_known == NULL;
    unsigned others = is_first ? 0 : last.others;
    unsigned slots = is_first ? 0 : last.other_slots;
    unsigned unpatched = is_first ? 0 : last.unpatched;

    last.text[is_first ? 0 : strlen(last.text)] = '\0';
    for (size_t i = 0; i < walk->count; i++) {
        const struct hak_ngx_loaded *one = &walk->all[i];

        if (one->object == NULL && one->slots != 0 &&
            !hak_ngx_slots_serve(&one->elf)) {
            others++;
            slots += one->slots;
        }
        if (*one->unpatched != '\0') {
            unpatched++;
            add_text(hak_ngx_printable(&one->elf), one->unpatched);
        }
    }
    last.others = others;
    last.other_slots = slots;
    last.unpatched = unpatched;
}

/* Marks all present objects as known; without memory for that none is. */
static void get_to_know(const struct hak_ngx_walk *walk)
{
    struct place *places = realloc(last.places, walk->count * sizeof(*places));

    last.nplaces = 0;
    if (places == NULL) {
        return;
    }
    last.places = places;
    for (; last.nplaces < walk->count; last.nplaces++) {
        const struct hak_ngx_elf *elf = &walk->all[last.nplaces].elf;

        places[last.nplaces] = (struct place){elf->base, elf->dynamic};
    }
}

/*
 * Nothing has been unloaded since, so the same address means the same object.
 */
static bool is_known(const struct hak_ngx_elf *elf)
{
    for (size_t i = 0; i < last.nplaces; i++) {
        if (last.places[i].base == elf->base &&
            last.places[i].dynamic == elf->dynamic) {
            return true;
        }
    }
    return false;
}

static void work(struct hak_ngx_walk *walk)
{
    for (size_t i = 0; i < walk->n; i++) {
        walk->objects[i].slots = 0;
        walk->objects[i].why[0] = '\0';
    }
    if (walk->writes && walk->is_known == NULL) {
        hak_ngx_slots_drop_gone();
    } else if (walk->writes) {
        hak_ngx_slots_mend();
    }
    hak_ngx_collect(walk);
    if (!walk->failed) {
        judge_objects(walk);
        take_frees(walk);
        leave_out_unsafe(walk);
        if (walk->writes) {
            serve(walk);
            remember(walk);
            get_to_know(walk);
        }
    }
    hak_ngx_forget(walk);
}

/* ---- nobody is loading anything ---------------------------------------------------- */

struct turn {
    struct hak_ngx_walk *walk; /* NULL: only checks */
    unsigned long long loads;
    bool only_new; /* what no earlier walk has seen */
    bool done;
};

static int take_turn(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct turn *turn = arg;

    (void)size;
    if (turn->walk == NULL) {
        turn->loads = info->dlpi_adds;
    } else if (turn->loads == info->dlpi_adds) {
        turn->done = true;
        turn->walk->is_known =
            turn->only_new && info->dlpi_subs == last.unloads ? is_known : NULL;
        work(turn->walk);
        if (turn->walk->writes && !turn->walk->failed) {
            last.loads = turn->loads;
            last.unloads = info->dlpi_subs;
        }
    }
    return 1;
}

static unsigned long long count_loads(void)
{
    struct turn turn = {0};

    dl_iterate_phdr(take_turn, &turn);
    return turn.loads;
}

/*
 * Objects are first put into the list and then filled in, while the loader
 * holds its other lock, for which dladdr waits. So what was in the list before
 * calling dladdr is complete after it; if nothing was added meanwhile, the work
 * can be done. (In the thread that loads, in a constructor, dladdr does not
 * wait; but then everything is filled in.) False: somebody keeps loading
 * something.
 */
static bool work_in_peace(struct hak_ngx_walk *walk, bool only_new)
{
    struct turn turn = {.walk = walk, .only_new = only_new};
    Dl_info ignored;

    is_walking = true;
    for (int tries = 0; tries < 100 && !turn.done; tries++) {
        turn.loads = count_loads();
        dladdr((const void *)(uintptr_t)hak_ngx_find, &ignored);
        dl_iterate_phdr(take_turn, &turn);
    }
    is_walking = false;
    return turn.done;
}

/* ---- the interface ------------------------------------------------------------------- */

static int finish(const struct hak_ngx_walk *walk, bool done, char *why,
                  size_t len)
{
    if (len > 0) {
        *why = '\0';
    }
    if (!done || walk->failed) {
        snprintf(why, len, "%s",
                 done ? "out of memory" : "libraries are being loaded");
        return -1;
    }
    for (size_t i = 0; i < walk->n && *why == '\0'; i++) {
        snprintf(why, len, "%s", walk->objects[i].why);
    }
    return *why != '\0' ? -1 : 0;
}

int hak_ngx_patch(hak_ngx_object *objects, size_t n, char *why, size_t len)
{
    struct hak_ngx_walk walk = {.objects = objects, .n = n, .writes = true};
    bool done = work_in_peace(&walk, false);
    int result = finish(&walk, done, why, len);

    for (size_t i = 0; done && !walk.failed && i < n; i++) {
        if (objects[i].slots != 0) {
            return 0;
        }
    }
    return result;
}

int hak_ngx_check(const hak_ngx_object *objects, size_t n, char *why,
                  size_t len)
{
    hak_ngx_object *copies = calloc(n != 0 ? n : 1, sizeof(*copies));
    struct hak_ngx_walk walk = {.objects = copies, .n = n};
    bool done;
    int result;

    if (copies == NULL) {
        snprintf(why, len, "out of memory");
        return -1;
    }
    memcpy(copies, objects, n * sizeof(*copies));
    done = work_in_peace(&walk, false);
    result = finish(&walk, done, why, len);
    free(copies);
    return result;
}

/* Nothing was loaded or unloaded since the last walk: checks what it wrote. */
static int mend(struct dl_phdr_info *info, size_t size, void *arg)
{
    bool *is_done = arg;

    (void)size;
    *is_done = info->dlpi_adds == last.loads && info->dlpi_subs == last.unloads;
    if (*is_done) {
        hak_ngx_slots_mend();
    }
    return 1;
}

void hak_ngx_catch_up(void)
{
    struct hak_ngx_walk walk = {.writes = true};
    int saved = errno;
    bool is_done;

    if (!is_walking && last.loads != 0) {
        dl_iterate_phdr(mend, &is_done);
        if (!is_done) {
            (void)work_in_peace(&walk, true);
        }
    }
    errno = saved;
}

static int give_back(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)info;
    (void)size;
    (void)arg;
    hak_ngx_slots_give_back();
    last.loads = 0;
    return 1;
}

void hak_ngx_unpatch(void)
{
    dl_iterate_phdr(give_back, NULL);
}

bool hak_ngx_loaded_since(void)
{
    unsigned long long loads = count_loads();
    bool since = loads != loads_seen;

    loads_seen = loads;
    return since;
}

unsigned hak_ngx_other_objects(void)
{
    return last.others;
}

unsigned hak_ngx_other_slots(void)
{
    return last.other_slots;
}

unsigned hak_ngx_unpatched(void)
{
    return last.unpatched;
}

struct copy {
    char *text;
    size_t len;
};

static int copy_text(struct dl_phdr_info *info, size_t size, void *arg)
{
    const struct copy *copy = arg;

    (void)info;
    (void)size;
    snprintf(copy->text, copy->len, "%s", last.text);
    return 1;
}

void hak_ngx_unpatched_text(char *text, size_t len)
{
    struct copy copy = {text, len};

    dl_iterate_phdr(copy_text, &copy);
}
