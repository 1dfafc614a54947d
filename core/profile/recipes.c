/*
 * recipes.c - from a C frame to its caller's: see recipes.h.
 *
 * Tested by tests/unit/profile/unwind.c.
 */
#include "profile/recipes.h"

#include <string.h>
#include <sys/auxv.h>

#include "os/os.h"
#include "profile/rows.h"

#if HAK_RECIPES

/* ---- the table of recipes ------------------------------------------------------ */

enum recipes_kind {
    RECIPE_SP, /* the CFA is `cfa` above the stack pointer */
    RECIPE_BP, /* above rbp */
    RECIPE_LAST
};

struct recipe {
    uint32_t place; /* of the FDE in the object's index */
    enum recipes_kind kind;
    uint32_t cfa,
        bp; /* rbp is saved so far below the CFA; 0: it is as before */
};

/* In one word: `place`, `kind`, `cfa` and `bp` in words. */
#define RECIPES_PLACES (1u << 24)
#define RECIPES_CFA (8u << 20)
#define RECIPES_BP (8u << 18)

static uint64_t recipes_pack(const struct recipe *recipe)
{
    return (uint64_t)recipe->place << 40 | (uint64_t)recipe->kind << 38 |
           (uint64_t)(recipe->cfa / 8) << 18 | recipe->bp / 8;
}

static struct recipe recipes_unpack(uint64_t word)
{
    return (struct recipe){(uint32_t)(word >> 40),
                           (enum recipes_kind)(word >> 38 & 3),
                           (uint32_t)(word >> 18) % (RECIPES_CFA / 8) * 8,
                           (uint32_t)word % (RECIPES_BP / 8) * 8};
}

/* check: what the bytes of table come to that say so. key ^ check ^ recipe is the
 * return address, or else the words are of several entries. */
static struct recipes_entry {
    _Atomic(uint64_t) key, check, recipe;
} recipes_table[2048];

static struct recipes_entry *recipes_entry(uintptr_t pc)
{
    return &recipes_table[pc * UINT64_C(0x9e3779b97f4a7c15) >> 53];
}

static bool recipes_load(uintptr_t pc, uint64_t *recipe, uint64_t *check)
{
    struct recipes_entry *entry = recipes_entry(pc);
    uint64_t key = atomic_load_explicit(&entry->key, memory_order_relaxed);

    *check = atomic_load_explicit(&entry->check, memory_order_relaxed);
    *recipe = atomic_load_explicit(&entry->recipe, memory_order_relaxed);
    return (key ^ *check ^ *recipe) == pc;
}

static void recipes_store(uintptr_t pc, uint64_t recipe, uint64_t check)
{
    struct recipes_entry *entry = recipes_entry(pc);

    atomic_store_explicit(&entry->key, pc ^ check ^ recipe,
                          memory_order_relaxed);
    atomic_store_explicit(&entry->check, check, memory_order_relaxed);
    atomic_store_explicit(&entry->recipe, recipe, memory_order_relaxed);
}

/* ---- objects ------------------------------------------------------------------- */

/* struct dl_find_object of glibc, whose headers need not be there. */
struct recipes_object {
    uint64_t flags;
    uintptr_t from, to;
    void *link_map;
    const unsigned char *index; /* .eh_frame_hdr */
    uint64_t reserved[7];
};
typedef int (*recipes_finder)(void *address, struct recipes_object *object);

static _Atomic(recipes_finder) recipes_find;

/* Where objects begin that stay as long as this code does: its own, the program, the C
 * library. */
#define RECIPES_STAY 3
static _Atomic(uintptr_t) recipes_stay[RECIPES_STAY];

/* Above the main thread's frames: bytes that the kernel gave the process. */
static _Atomic(uintptr_t) recipes_main_top;

void haki_recipes_begin(void *find)
{
    const uintptr_t inside[RECIPES_STAY] = {(uintptr_t)haki_recipes_begin,
                                            getauxval(AT_PHDR),
                                            (uintptr_t)getauxval};
    recipes_finder run = (recipes_finder)(uintptr_t)find;
    struct recipes_object object;

    for (int i = 0; i < RECIPES_STAY; i++) {
        if (run((void *)inside[i], &object) == 0) {
            atomic_store(&recipes_stay[i], object.from);
        }
    }
    atomic_store(&recipes_main_top, getauxval(AT_RANDOM));
    atomic_store(&recipes_find, run);
}

static bool recipes_stays(uintptr_t from)
{
    for (int i = 0; i < RECIPES_STAY; i++) {
        if (from ==
            atomic_load_explicit(&recipes_stay[i], memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

/* The distance from the index to a function and to its FDE. */
static int32_t recipes_index(const struct hak_walk *walk, uint32_t place,
                             unsigned which)
{
    return (int32_t)haki_row_u32(walk->index + 12 + 8 * (size_t)place +
                                 4 * which);
}

/* Whether so many bytes of table lie in the object. */
static bool recipes_is_inside(const struct hak_walk *walk,
                              const unsigned char *at, size_t bytes)
{
    uintptr_t offset = (uintptr_t)at - walk->from;

    return offset < walk->bytes && bytes <= walk->bytes - offset;
}

/* The object at that address, whose index must be as linkers make it: version 1,
 * distances of 4 bytes. */
static bool recipes_object(struct hak_walk *walk, uintptr_t at)
{
    static const unsigned char usual[4] = {1, 0x1b, 0x03, 0x3b};
    struct recipes_object object;
    recipes_finder find =
        atomic_load_explicit(&recipes_find, memory_order_acquire);

    walk->bytes = walk->count = 0;
    walk->cie = NULL;
    if (find == NULL || find((void *)at, &object) != 0 ||
        object.index == NULL ||
        memcmp(object.index, usual, sizeof(usual)) != 0) {
        return false;
    }
    walk->from = object.from;
    walk->stays = recipes_stays(object.from);
    walk->bytes = object.to - object.from;
    walk->index = object.index;
    walk->count = haki_row_u32(object.index + 8);
    if (walk->count >= RECIPES_PLACES ||
        !recipes_is_inside(walk, walk->index, 12 + 8 * (size_t)walk->count)) {
        walk->count = 0;
        return false;
    }
    return true;
}

#define RECIPES_LONGEST 4096u
static bool recipes_is_entry(const struct hak_walk *walk,
                             const unsigned char *at)
{
    return recipes_is_inside(walk, at, 8) &&
           haki_row_u32(at) <= RECIPES_LONGEST &&
           recipes_is_inside(walk, at, 4 + (size_t)haki_row_u32(at));
}

/* The FDE at that place and its CIE; false: they are not as usual. */
static bool recipes_entries(const struct hak_walk *walk, uint32_t place,
                            const unsigned char **fde,
                            const unsigned char **cie)
{
    if (place >= walk->count) {
        return false;
    }
    *fde = walk->index + recipes_index(walk, place, 1);
    if (!recipes_is_entry(walk, *fde)) {
        return false;
    }
    *cie = *fde + 4 - haki_row_u32(*fde + 4);
    return recipes_is_entry(walk, *cie);
}

/* The product of both, 128 bits folded. */
static uint64_t recipes_mix(uint64_t a, uint64_t b)
{
    hak_u128 product = (hak_u128)(a ^ UINT64_C(0x9e3779b97f4a7c15)) *
                       (b ^ UINT64_C(0xd1342543de82ef95));

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* What the bytes of a CIE or FDE come to. */
static uint64_t recipes_sum(uint64_t check, const unsigned char *at)
{
    size_t n = 4 + haki_row_u32(at);
    uint64_t words[2];

    for (; n >= sizeof(words); n -= sizeof(words), at += sizeof(words)) {
        memcpy(words, at, sizeof(words));
        check = recipes_mix(check ^ words[0], words[1]);
    }
    memset(words, 0, sizeof(words));
    memcpy(words, at, n);
    return recipes_mix(check ^ words[0], words[1]);
}

static bool recipes_check(struct hak_walk *walk, uint32_t place,
                          uint64_t *check)
{
    const unsigned char *fde, *cie;

    if (!recipes_entries(walk, place, &fde, &cie)) {
        return false;
    }
    if (cie != walk->cie) {
        walk->cie = cie;
        walk->cie_check = recipes_sum(0, cie);
    }
    *check = recipes_sum(walk->cie_check ^ (uintptr_t)fde, fde);
    return true;
}

/* The recipe of such a row; false: there is none. */
static bool recipes_of_row(struct recipe *recipe, const struct hak_row *row)
{
    if (row->ra.how == HAK_ROW_UNDEFINED) {
        recipe->kind = RECIPE_LAST;
        recipe->cfa = recipe->bp = 0;
        return true;
    }
    if ((row->cfa_register != HAK_REGISTER_SP &&
         row->cfa_register != HAK_REGISTER_BP) ||
        row->cfa < 8 || row->cfa >= (int64_t)RECIPES_CFA || row->cfa % 8 != 0 ||
        row->ra.how != HAK_ROW_SAVED || row->ra.at != -8 ||
        row->sp.how != HAK_ROW_SAME) {
        return false;
    }
    recipe->kind = row->cfa_register == HAK_REGISTER_SP ? RECIPE_SP : RECIPE_BP;
    recipe->cfa = (uint32_t)row->cfa;
    recipe->bp = 0;
    if (row->bp.how == HAK_ROW_SAVED) {
        if (row->bp.at >= -8 || row->bp.at <= -(int64_t)RECIPES_BP ||
            row->bp.at % 8 != 0) {
            return false;
        }
        recipe->bp = (uint32_t)-row->bp.at;
    }
    return row->bp.how == HAK_ROW_SAVED || row->bp.how == HAK_ROW_SAME;
}

/* The last place in the index of a function that begins at or before that address;
 * walk->count: there is none. */
static uint32_t recipes_place(const struct hak_walk *walk, uintptr_t at)
{
    int64_t wanted = (int64_t)(at - (uintptr_t)walk->index);
    uint32_t low = 0, high = walk->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (recipes_index(walk, middle, 0) <= wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low != 0 ? low - 1 : walk->count;
}

static HAK_NOINLINE bool recipes_learn(struct hak_walk *walk, uint64_t *word)
{
    struct hak_row row;
    struct recipe recipe;
    const unsigned char *fde, *cie;
    uintptr_t at = walk->pc - 1;
    uint64_t check;

    recipe.place = recipes_place(walk, at);
    if (!recipes_entries(walk, recipe.place, &fde, &cie) ||
        !haki_row_read(fde, cie, at, &row) || !recipes_of_row(&recipe, &row) ||
        !recipes_check(walk, recipe.place, &check)) {
        return false;
    }
    *word = recipes_pack(&recipe);
    recipes_store(walk->pc, *word, check);
    return true;
}

/* ---- a step ---------------------------------------------------------------------- */

/* The recipe as it was learned, if the tables are the same. */
static bool recipes_recollect(struct hak_walk *walk, uint64_t *word)
{
    uint64_t learned, check;

    return recipes_load(walk->pc, word, &learned) &&
           (walk->stays ||
            (recipes_check(walk, recipes_unpack(*word).place, &check) &&
             check == learned));
}

/* What lies above all frames of a stack where sp is: the C library has a thread's pointer
 * at the end of its stack, and other stacks (coroutines') are all above or all below it.
 */
static uintptr_t recipes_top(uintptr_t sp)
{
    uintptr_t thread, top = atomic_load(&recipes_main_top);

    __asm__("movq %%fs:0, %0" : "=r"(thread));
    return thread > sp ? thread : top > sp ? top : UINTPTR_MAX;
}

/* Whether a word of the stack can be read. */
static bool recipes_can_read(struct hak_walk *walk, uintptr_t at)
{
    uintptr_t page = at & ~(uintptr_t)(HAK_PAGE - 1);

    if (page != walk->page && !haki_os_can_read((void *)at)) {
        return false;
    }
    walk->page = page;
    return true;
}

/* Whether the frame may end there, and have saved rbp so far below that. */
static bool recipes_can_end(struct hak_walk *walk, uintptr_t cfa, uint32_t bp)
{
    if (walk->page == 0) { /* its function runs */
        walk->page = walk->sp & ~(uintptr_t)(HAK_PAGE - 1);
    }
    return cfa % 8 == 0 && cfa >= walk->sp + 8 && bp <= cfa - walk->sp &&
           cfa <= recipes_top(walk->sp) &&
           (bp == 0 || recipes_can_read(walk, cfa - bp)) &&
           recipes_can_read(walk, cfa - 8);
}

bool haki_recipes_step(struct hak_walk *walk)
{
    uintptr_t at = walk->pc - 1, cfa;
    struct recipe recipe;
    uint64_t word;

    /* What returns there was called by the instruction before. */
    if (at - walk->from >= walk->bytes && !recipes_object(walk, at)) {
        return false;
    }
    if (!recipes_recollect(walk, &word) && !recipes_learn(walk, &word)) {
        return false;
    }
    recipe = recipes_unpack(word);
    if (recipe.kind == RECIPE_LAST) {
        walk->pc = 0;
        return true;
    }
    cfa = (recipe.kind == RECIPE_SP ? walk->sp : walk->bp) + recipe.cfa;
    if (!recipes_can_end(walk, cfa, recipe.bp)) {
        walk->lost = true;
        return false;
    }
    if (cfa - walk->sp >= RECIPES_CFA) {
        return false;
    }
    walk->pc = *(const uintptr_t *)(cfa - 8);
    if (recipe.bp != 0) {
        walk->bp = *(const uintptr_t *)(cfa - recipe.bp);
    }
    walk->sp = cfa;
    return true;
}

#else

void haki_recipes_begin(void *find)
{
    (void)find;
}

bool haki_recipes_step(struct hak_walk *walk)
{
    (void)walk;
    return false;
}

#endif
