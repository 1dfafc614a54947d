/*
 * hak_py_stats.c - the adapter's statistics as Python objects.
 */
#include "hak_py.h"

/* Blocks that a lane has given out to raw and mem, in all heaps. */
struct counted {
    uint64_t tiny[HAK_PY_DOMAINS], large[HAK_PY_DOMAINS];
};

/* Counts blocks of domain i, which is not obj. */
static void count(struct counted *counted, unsigned i, uint64_t tiny,
                  uint64_t large)
{
    counted->tiny[i] += tiny;
    counted->large[i] += large;
    counted->tiny[HAK_PY_OBJ] -= tiny;
    counted->large[HAK_PY_OBJ] -= large;
}

static void count_heaps(struct counted *counted, const hak_stats_t *stats)
{
    struct hak_heap *heap;

    counted->tiny[HAK_PY_OBJ] = stats->tiny_allocs;
    counted->large[HAK_PY_OBJ] =
        stats->pool_allocs + stats->ace_allocs + stats->huge_allocs;
    for (uint32_t id = 0; (id = haki_embed_next(id, &heap)) != 0;) {
        const struct hak_py_extra *extra = hak_py_extra(heap);

        for (unsigned i = 0; i < HAK_PY_OBJ; i++) {
            count(counted, i, extra->tiny[i], extra->large[i]);
        }
    }
    for (unsigned i = 0; i < HAK_PY_OBJ; i++) { /* heaps that have ended */
        count(counted, i, haki_embed_past(i), haki_embed_past(HAK_PY_OBJ + i));
    }
}

/* Adds an object to a dict and drops our reference; false: an exception. */
static bool put(PyObject *dict, const char *key, PyObject *value)
{
    bool done = value != NULL && PyDict_SetItemString(dict, key, value) == 0;

    Py_XDECREF(value);
    return done;
}

static PyObject *number(uint64_t value)
{
    return PyLong_FromUnsignedLongLong(value);
}

/* The names that these statistics had before 0.2. */
static bool put_old_names(PyObject *dict, const struct hak_py_domain *d)
{
    static const char *const pairs[][2] = {{"tiny", "tiny_allocs"},
                                           {"larger", "larger_allocs"},
                                           {"foreign", "foreign_frees"},
                                           {"refused", "limit_refusals"},
                                           {"limit_refused", "limit_refusals"}};
    bool good = true;

    for (unsigned i = 0; good && i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        PyObject *value = PyDict_GetItemString(dict, pairs[i][1]);

        Py_XINCREF(value);
        good = put(dict, pairs[i][0], value);
    }
    return good &&
           put(dict, "fallback",
               Py_BuildValue("{s:K,s:K,s:K}", "large",
                             (unsigned long long)d->fallback[HAK_PY_LARGE],
                             "memory",
                             (unsigned long long)d->fallback[HAK_PY_MEMORY],
                             "off",
                             (unsigned long long)d->fallback[HAK_PY_OFF]));
}

static PyObject *domain_dict(const struct hak_py_domain *d,
                             const struct counted *counted, bool enabled)
{
    static const char *const reasons[HAK_PY_REASONS] = {
        "fallback_large", "fallback_memory", "fallback_off"};
    uint64_t tiny = counted->tiny[d->which], larger = counted->large[d->which];
    uint64_t all = 0;
    PyObject *dict = PyDict_New();
    bool good = dict != NULL;

    for (unsigned r = 0; r < HAK_PY_REASONS; r++) {
        all += d->fallback[r];
    }
    good = good && put(dict, "enabled", PyBool_FromLong(enabled)) &&
           put(dict, "calls", number(tiny + larger + all)) &&
           put(dict, "tiny_allocs", number(tiny)) &&
           put(dict, "larger_allocs", number(larger));
    for (unsigned r = 0; good && r < HAK_PY_REASONS; r++) {
        good = put(dict, reasons[r], number(d->fallback[r]));
    }
    good = good && put(dict, "foreign_frees", number(d->foreign)) &&
           put(dict, "limit_refusals", number(d->refused)) &&
           put_old_names(dict, d);
    if (!good) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* One Tiny class in all heaps. */
static PyObject *class_dict(unsigned class)
{
    unsigned long long allocs = 0, live = 0;
    struct hak_heap *heap;

    for (uint32_t id = 0; (id = haki_embed_next(id, &heap)) != 0;) {
        allocs += haki_embed_class_allocs(heap, class);
        live += haki_embed_class_live(heap, class);
    }
    return Py_BuildValue("{s:I,s:K,s:K,s:K}", "size",
                         (unsigned)haki_embed_class_bytes(class), "tiny_allocs",
                         allocs, "blocks", live, "calls", allocs);
}

static PyObject *class_list(void)
{
    PyObject *list = PyList_New(0);

    for (unsigned c = 0; list != NULL && c < HAK_EMBED_CLASSES; c++) {
        PyObject *one;

        if (hak_py_class(haki_embed_class_bytes(c)) != c) {
            continue; /* only Lua uses it */
        }
        one = class_dict(c);
        if (one == NULL || PyList_Append(list, one) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(one);
    }
    return list;
}

static uint64_t blocks_of(const hak_stats_t *stats)
{
    return stats->tiny_allocs + stats->pool_allocs + stats->ace_allocs +
           stats->huge_allocs - stats->tiny_frees - stats->pool_frees -
           stats->ace_frees - stats->huge_frees;
}

uint64_t hak_py_blocks(void)
{
    hak_stats_t stats = {.size = sizeof(stats)};

    hak_stats(&stats);
    return hak_py.started ? blocks_of(&stats) : 0;
}

static PyObject *string_or_none(const char *text)
{
    return text != NULL ? PyUnicode_FromString(text) : Py_BuildValue("");
}

static bool put_limit(PyObject *dict)
{
    bool none = hak_py.limit == HAK_PY_NO_LIMIT;

    return put(dict, "limit",
               none ? Py_BuildValue("") : PyLong_FromSize_t(hak_py.limit)) &&
           put(dict, "limit_of",
               string_or_none(none           ? NULL
                              : hak_py.whole ? "memory"
                                             : "served"));
}

/* What the lanes hold for blocks, and how much has gone back. */
static bool put_held(PyObject *dict, const hak_stats_t *stats)
{
    uint64_t held = stats->tiny_held_bytes + stats->pool_held_bytes +
                    stats->ace_held_bytes + stats->huge_held_bytes;
    uint64_t live = stats->tiny_live_bytes + stats->pool_live_bytes +
                    stats->ace_live_bytes + stats->huge_live_bytes;
    uint64_t due = hak_py.started ? stats->due_bytes : 0;

    return put(dict, "held_bytes", number(held)) &&
           put(dict, "free_bytes", number(held > live ? held - live : 0)) &&
           put(dict, "due_bytes", number(due)) &&
           put(dict, "resident_bytes", number(stats->resident_bytes)) &&
           put(dict, "purged_bytes", number(stats->purged_bytes)) &&
           put(dict, "returned_bytes", number(stats->purged_bytes)) &&
           put(dict, "give_back", PyBool_FromLong(hak_py_idle_is_allowed()));
}

PyObject *hak_py_stats(bool classes)
{
    static const char *const names[HAK_PY_DOMAINS] = {"raw", "mem", "obj"};
    hak_stats_t stats = {.size = sizeof(stats)};
    struct counted counted = {{0}, {0}};
    PyObject *dict = PyDict_New();
    unsigned enabled = hak_py_enabled();
    bool good = dict != NULL;
    size_t live = hak_py_live();

    hak_py_raise_peak(live);
    hak_stats(&stats);
    count_heaps(&counted, &stats);
    for (unsigned i = HAK_PY_DOMAINS; good && i-- > 0;) {
        good = put(dict, names[i],
                   domain_dict(&hak_py.domains[i], &counted,
                               (enabled >> i & 1) != 0));
    }
    good =
        good && put(dict, "live_bytes", PyLong_FromSize_t(live)) &&
        put(dict, "peak_bytes", number(atomic_load(&hak_py.peak))) &&
        put(dict, "blocks", number(blocks_of(&stats))) &&
        put(dict, "guards", number(stats.guards)) &&
        put(dict, "guards_missed", number(stats.guards_missed)) &&
        put_held(dict, &stats) && put_limit(dict) &&
        put(dict, "lanes",
            PyUnicode_FromString(hak_py.most > HAK_LANE_TINY_MAX ? "all"
                                                                 : "tiny")) &&
        put(dict, "shared", PyBool_FromLong(hak_py.shared)) &&
        put(dict, "reason", string_or_none(hak_py_why()));
    if (good && classes) {
        good = put(dict, "classes", class_list());
    }
    if (!good) {
        Py_CLEAR(dict);
    }
    return dict;
}
