/*
 * symbols.c - tests of names of functions by their addresses: those that a look
 * through the whole table would find.
 */
#include <elf.h>
#include <link.h>
#include <math.h>

#include "profile/symbols.h"
#include "unit.h"

TestSuite(symbols, .init = unit_need_names, .timeout = 120);

static struct hak_symbols symbols;

HAK_NOINLINE static int one(int n)
{
    return n * 3;
}

HAK_NOINLINE static int other(int n)
{
    return one(n) + 1;
}

static const char *name_at(uintptr_t pc)
{
    struct hak_symbol symbol;

    haki_symbols_find(&symbols, pc, &symbol);
    return symbol.name != NULL ? symbol.name : "";
}

Test(symbols, functions_have_their_names)
{
    haki_symbols_begin(&symbols);
    cr_assert_eq(other(2), 7);
    cr_expect_str_eq(name_at((uintptr_t)one), "one");
    cr_expect_str_eq(name_at((uintptr_t)other), "other");
    cr_expect_str_eq(name_at((uintptr_t)other + 1), "other");
    cr_expect_str_neq(name_at((uintptr_t)other - 1), "other");
    cr_expect_str_eq(name_at((uintptr_t)name_at), "name_at");
    /* Of a library. */
    cr_expect_str_eq(name_at((uintptr_t)dl_iterate_phdr + 1),
                     "dl_iterate_phdr");
    cr_expect_str_eq(name_at((uintptr_t)&symbols), "");
    cr_expect_str_eq(name_at(1), "");
    haki_symbols_drop(&symbols);
}

/* The innermost function at an address of the file, the first of aliases. */
static const ElfW(Sym) * look(const struct hak_module *module, uint64_t value)
{
    const ElfW(Sym) *all = module->symbols, *best = NULL;

    for (size_t i = 0; i < module->count; i++) {
        uint64_t size = all[i].st_size != 0 ? all[i].st_size : 1;

        if (ELF64_ST_TYPE(all[i].st_info) == STT_FUNC &&
            all[i].st_shndx != SHN_UNDEF && value >= all[i].st_value &&
            value - all[i].st_value < size &&
            (best == NULL || all[i].st_value > best->st_value)) {
            best = &all[i];
        }
    }
    return best;
}

static void compare(uintptr_t of_it)
{
    struct unit_random random = {of_it};
    struct hak_symbol symbol;
    const struct hak_module *module;
    size_t n = unit_scale(2000, 100), named = 0;

    haki_symbols_find(&symbols, of_it, &symbol);
    module = symbol.module;
    NEED(module != NULL && module->count > 100);
    for (size_t i = 0; i < n; i++) {
        const ElfW(Sym) *all = module->symbols, *best,
                        *near = &all[unit_below(&random, module->count)];
        /* Its ends, and what lies beside it. */
        uintptr_t pc = module->bias + near->st_value - i % 2 +
                       (i % 4 < 2 ? 0 : near->st_size);

        if (pc < module->base || pc >= module->end) {
            continue; /* no address, or another object's */
        }
        best = look(module, pc - module->bias);
        haki_symbols_find(&symbols, pc, &symbol);
        if (best == NULL) {
            cr_assert_null(symbol.name);
            continue;
        }
        named++;
        cr_assert_eq(symbol.name, module->strings + best->st_name, "%s, not %s",
                     symbol.name, module->strings + best->st_name);
        cr_assert_eq(symbol.at, module->bias + best->st_value);
    }
    cr_assert_gt(named, n / 10);
}

Test(symbols, each_is_what_the_whole_table_says)
{
    haki_symbols_begin(&symbols);
    compare((uintptr_t)one);
    compare((uintptr_t)dl_iterate_phdr);
    compare((uintptr_t)cos);
    haki_symbols_drop(&symbols);
}
