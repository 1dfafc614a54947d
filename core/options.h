/*
 * options.h - settings from the environment, read once.
 *
 * Layer 2. The table is options.def. A value that can't be read or is out of
 * bounds is reported in one line and the default is used.
 */
#ifndef HAK_OPTIONS_H
#define HAK_OPTIONS_H

#include "base.h"

/* Sanitizers and valgrind keep shadow memory for what we reserve. */
#if defined(HAK_SMALL_RANGE)
#define HAK_RANGE_DEFAULT (4 * HAK_GIB)
#else
#define HAK_RANGE_DEFAULT (64 * HAK_GIB)
#endif

/* Values of HAK_OPT_huge, in the order of its words. */
enum hak_huge { HAK_HUGE_AUTO, HAK_HUGE_ALWAYS, HAK_HUGE_NEVER };

enum hak_option {
#define HAK_OPTION(type, name, ...) HAK_OPT_##name,
#include "options.def"
#undef HAK_OPTION
    HAK_OPTIONS
};

/*
 * The value of an option. The first call reads the environment; any thread
 * may call at any time.
 */
size_t hak_option(enum hak_option option);

#ifdef HAK_TESTING
/* Tests only: reads the environment again. */
void hak_option_test_reload(void);
#endif

#endif /* HAK_OPTIONS_H */
