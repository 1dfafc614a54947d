/*
 * hak_py_profile.c - profiles of a Python program: what a sample's frames are
 * called, on and off, and what is read as Python objects.
 *
 * The core samples (core/profile/profile.h) and asks for the frames, which
 * hak_py_frames.c finds. Their names are kept by the core under numbers. To ask
 * it takes a lock; so the numbers that were asked for last are remembered, by the
 * hash that a str has of its text. They never change, as the core's do not.
 *
 * While a profile runs all three domains are on and every size is ours, as under
 * a limit for all memory: what is not ours is not sampled.
 */
#include <dlfcn.h>
#include <link.h>

#include "hak_py.h"
#include "hak_py_frames.h"

/* ---- names ---------------------------------------------------------------------- */

/* Longer ones are cut. */
#define NAME_MOST 480

/* A word a name, so that threads need no lock: the hash's upper bits and the
 * number in the lower ones; 0: nothing. */
#define KEPT 512
#define NUMBER_BITS 20
_Static_assert(HAK_NAMES_MOST < 1u << NUMBER_BITS, "a number fits");

static _Atomic(uint64_t) kept[KEPT];

/* A code point as UTF-8, or '?' where no text may have it; returns its bytes. */
static size_t utf8(char *to, Py_UCS4 c)
{
    if (c < ' ' || (c >= 0xd800 && c < 0xe000)) {
        c = '?';
    }
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* The text's number, asked of the core. PyUnicode_AsUTF8 would allocate. */
static uint32_t ask_name(PyObject *text)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    char name[NAME_MOST + 4];
    size_t used = 0;

    for (Py_ssize_t i = 0; i < length && used < NAME_MOST; i++) {
        used += utf8(name + used, PyUnicode_READ(kind, data, i));
    }
    return haki_profile_name(name, used);
}

/* The number of a str; 0: it is none, or there is no room. */
static uint32_t name_of(PyObject *text)
{
    const uint64_t mask = ((uint64_t)1 << NUMBER_BITS) - 1;
    _Atomic(uint64_t) *place;
    uint64_t hash, seen;
    uint32_t number;

    if (text == NULL || !PyUnicode_Check(text) || !PyUnicode_IS_READY(text)) {
        return 0;
    }
    hash = (uint64_t)((PyASCIIObject *)(void *)text)->hash;
    if (hash == (uint64_t)-1) {
        return ask_name(text);
    }
    place = &kept[hash % KEPT];
    hash = hash * UINT64_C(0x9e3779b97f4a7c15) & ~mask;
    seen = atomic_load_explicit(place, memory_order_relaxed);
    if ((seen & ~mask) == hash && (seen & mask) != 0) {
        return (uint32_t)(seen & mask);
    }
    number = ask_name(text);
    if (number != 0) {
        atomic_store_explicit(place, hash | number, memory_order_relaxed);
    }
    return number;
}

static PyObject *function_name(const PyCodeObject *code)
{
#if PY_VERSION_HEX >= 0x030b0000
    return code->co_qualname;
#else
    return code->co_name;
#endif
}

/* ---- frames ---------------------------------------------------------------------- */

/* Whether the core knows where the interpreter's code is: then C frames are those
 * of what the innermost Python frame has called outside of it. */
static bool code_known;

/* Names of files. Frames of the one that runs a program, and what is around them, are
 * not the program's; those of importlib are left out, as in tracebacks. */
static _Atomic(uint32_t) runner, importlib[2];

/* By the first sample of a profile that nobody here has begun, or before. */
static void find_importlib(void)
{
    static const char *const names[] = {
        "<frozen importlib._bootstrap>",
        "<frozen importlib._bootstrap_external>"};

    for (int i = 0; i < 2; i++) {
        importlib[i] = haki_profile_name(names[i], strlen(names[i]));
    }
}

static bool is_importing(uint32_t file)
{
    return file != 0 && (file == importlib[0] || file == importlib[1]);
}

static void find_names(PyObject *runs)
{
    runner = name_of(runs);
    find_importlib();
}

/* What is executable around an address. */
static int find_code(struct dl_phdr_info *info, size_t size, void *code)
{
    struct hak_code *around = code;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t from = info->dlpi_addr + part->p_vaddr;

        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0 &&
            around->from >= from && around->from < from + part->p_memsz) {
            *around = (struct hak_code){from, from + part->p_memsz};
            return 1;
        }
    }
    return 0;
}

static struct hak_code code_around(const void *at)
{
    struct hak_code code = {(uintptr_t)at, (uintptr_t)at};

    dl_iterate_phdr(find_code, &code);
    return code;
}

/* The loop of 3.9 to 3.13 has some 40 KB. What is much smaller, in 3.14, calls
 * functions that go on to each other: no frame on the stack is the loop's. */
#define LOOP_LEAST (16 * HAK_KIB)

static void find_interpreter(void)
{
    void *loop = dlsym(RTLD_DEFAULT, "_PyEval_EvalFrameDefault");
    const ElfW(Sym) *symbol = NULL;
    uintptr_t at = (uintptr_t)loop;
    Dl_info info;

    if (loop != NULL &&
        dladdr1(loop, &info, (void **)&symbol, RTLD_DL_SYMENT) != 0 &&
        symbol != NULL && symbol->st_size >= LOOP_LEAST) {
        struct hak_code silent[HAK_UNWIND_SILENT] = {
            code_around(loop),
            code_around((void *)(uintptr_t)hak_py_profile_end)};

        haki_unwind_runtime((struct hak_code){at, at + symbol->st_size},
                            silent);
        code_known = true;
    }
}

/* The core's haki_frames_fn. The innermost frame is told in any case. */
static unsigned frames_now(struct hak_heap *heap, struct hak_frame *frames,
                           unsigned most, size_t *below)
{
    bool has_gil = heap == __atomic_load_n(&hak_py.heap, __ATOMIC_RELAXED);
    struct hak_py_frame found[HAK_STACK_FRAMES];
    unsigned n = hak_py_walk(has_gil && heap != NULL, found,
                             (unsigned)haki_min(most, HAK_STACK_FRAMES));
    unsigned told = 0;

    if (importlib[1] == 0) {
        find_importlib();
    }
    for (unsigned i = 0; i < n; i++) {
        const PyCodeObject *code = found[i].code;
        uint32_t file = name_of(code->co_filename);

        if (told > 0 && file != 0 && file == runner) {
            break;
        }
        if (told == 0 || !is_importing(file)) {
            frames[told++] =
                (struct hak_frame){.file = file,
                                   .function = name_of(function_name(code)),
                                   .line = (uint32_t)found[i].line};
        }
    }
    if (told != 0 && !code_known) {
        *below = 0; /* they would be the interpreter's own */
    }
    return told;
}

/* ---- on and off ----------------------------------------------------------------- */

/* How many run, at which rate, and that of before; under the lock of
 * hak_py_module.c. */
static unsigned running;
static size_t running_rate, rate_before;

size_t hak_py_profile_rate(void)
{
    return running != 0 ? running_rate : 0;
}

void hak_py_profile_frames(bool wanted)
{
    static bool tried, works, warned;

    if (!tried) {
        tried = true;
        works = hak_py_walk_works();
        if (works) {
            find_interpreter();
            haki_profile_set_frames(frames_now, NULL);
        }
    }
    if (wanted && !works && !warned) {
        warned = true;
        haki_warn("hakmem_py: the frames of this Python can't be read; its "
                  "profiles are without lines");
    }
}

/* What was switched holds at once for who calls: the GIL's heap, or the thread's. */
static void take_part(void)
{
    struct hak_heap *heap = hak_py_heap();

    heap = heap != NULL ? heap : haki_thread_own();
    if (heap != NULL) {
        haki_embed_draw(heap);
    }
}

static bool set_rate(size_t rate)
{
    if (!haki_profile_set(rate)) {
        return false;
    }
    take_part();
    return true;
}

bool hak_py_guard(size_t rate, size_t *before)
{
    *before = hak_guard_rate();
    hak_py_profile_frames(true);
    if (rate == 0) {
        hak_guard_stop();
    } else if (hak_guard_start(rate) != 0) {
        return false;
    }
    take_part();
    return true;
}

bool hak_py_profile_begin(size_t rate, PyObject *runs)
{
    if (running == 0) {
        rate_before = hak_profile_rate();
        hak_py_profile_frames(true);
        if (!set_rate(rate)) {
            return false;
        }
        running_rate = rate;
        find_names(runs);
    }
    running++;
    hak_py.profiled = true;
    hak_py_switch(hak_py.asked);
    return true;
}

void hak_py_profile_end(void)
{
    if (running != 0 && --running == 0) {
        set_rate(rate_before);
        hak_py.profiled = false;
        hak_py_switch(hak_py.asked);
    }
}

/* ---- what is read --------------------------------------------------------------- */

#define CAPSULE "hakmem_py.profile"

static void drop_stacks(PyObject *capsule)
{
    haki_profile_drop(PyCapsule_GetPointer(capsule, CAPSULE));
}

static struct hak_stacks *stacks_of(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, CAPSULE);
}

/* Of a copy; NULL is OSError. */
static PyObject *new_capsule(struct hak_stacks *stacks)
{
    PyObject *capsule;

    if (stacks == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    capsule = PyCapsule_New(stacks, CAPSULE, drop_stacks);
    if (capsule == NULL) {
        haki_profile_drop(stacks);
    }
    return capsule;
}

PyObject *hak_py_profile_read(void)
{
    return new_capsule(haki_profile_read(false));
}

PyObject *hak_py_profile_grown(PyObject *later, PyObject *earlier)
{
    const struct hak_stacks *to = stacks_of(later);
    const struct hak_stacks *from = to != NULL ? stacks_of(earlier) : NULL;

    return from != NULL ? new_capsule(haki_copies_grown(to, from)) : NULL;
}

bool hak_py_profile_write(PyObject *capsule, int fd, int format)
{
    const struct hak_stacks *stacks = stacks_of(capsule);
    struct hak_stacks *copy =
        stacks != NULL ? haki_copies_grown(stacks, NULL) : NULL;
    bool done;

    if (stacks == NULL) {
        return false;
    }
    done = copy != NULL && haki_profiling_write(copy, fd, format) == 0;
    if (!done) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return done;
}

static PyObject *name_text(const struct hak_stacks *stacks, uint32_t name)
{
    const char *text = haki_copies_name(stacks, name);

    return PyUnicode_FromString(text != NULL ? text : "?");
}

/* ((file, function, line), ...), the innermost first. */
static PyObject *frames_of(const struct hak_stacks *stacks,
                           const struct hak_frame *frame, unsigned count)
{
    PyObject *frames = PyTuple_New(count);

    for (unsigned i = 0; frames != NULL && i < count; i++) {
        PyObject *one =
            Py_BuildValue("NNI", name_text(stacks, frame[i].file),
                          name_text(stacks, frame[i].function), frame[i].line);

        if (one == NULL) {
            Py_CLEAR(frames);
        } else {
            PyTuple_SET_ITEM(frames, i, one);
        }
    }
    return frames;
}

static PyObject *stack_tuple(PyObject *frames, const struct hak_sums *sums)
{
    const double one = HAK_COUNT_ONE;

    return frames == NULL
               ? NULL
               : Py_BuildValue("NKdKd", frames,
                               (unsigned long long)sums->bytes[HAK_SUM_ALLOC],
                               (double)sums->count[HAK_SUM_ALLOC] / one,
                               (unsigned long long)sums->bytes[HAK_SUM_LIVE],
                               (double)sums->count[HAK_SUM_LIVE] / one);
}

PyObject *hak_py_profile_list(PyObject *capsule)
{
    const struct hak_stacks *stacks = stacks_of(capsule);
    PyObject *list = stacks != NULL ? PyList_New(0) : NULL;
    const struct hak_frame *frame;
    struct hak_sums sums;
    bool good = list != NULL;
    unsigned count;

    for (uint32_t i = 0;
         good && (frame = haki_copies_stack(stacks, i, &sums, &count)) != NULL;
         i++) {
        PyObject *one;

        if (sums.bytes[HAK_SUM_ALLOC] == 0 && sums.bytes[HAK_SUM_LIVE] == 0) {
            continue;
        }
        one = stack_tuple(frames_of(stacks, frame, count), &sums);
        good = one != NULL && PyList_Append(list, one) == 0;
        Py_XDECREF(one);
    }
    if (!good) {
        Py_CLEAR(list);
    }
    return list;
}
