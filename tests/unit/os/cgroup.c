/*
 * cgroup.c - tests of the reader of control groups, on a tree of files that
 * look like one: both versions, groups above one another, what is missing,
 * garbled, "max" or below what is in use.
 */
#include "os/cgroup.h"

#include <sys/stat.h>

#include "unit.h"

#define MB (1024 * 1024)
#define V1_NONE                                                                \
    "9223372036854771712" /* as the kernel says that there is none */

static char top[60];
static struct hak_cgroup group;
static struct hak_cgroup_state state;

/* Makes `top` and below it a/b, the group of the process. */
static void make_tree(void)
{
    char dir[100];

    snprintf(top, sizeof(top), "%s/hakmem-cgroup-XXXXXX", P_tmpdir);
    cr_assert_not_null(mkdtemp(top));
    snprintf(dir, sizeof(dir), "%s/a", top);
    cr_assert_eq(mkdir(dir, 0700), 0);
    snprintf(dir, sizeof(dir), "%s/a/b", top);
    cr_assert_eq(mkdir(dir, 0700), 0);
}

static void remove_tree(void)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -r %s", top);
    cr_assert_eq(system(command), 0);
}

TestSuite(cgroup, .init = make_tree, .fini = remove_tree, .timeout = 300);

/* dir is "a", "a/b" or "" for the top; the text is all of the file. */
static void put(const char *dir, const char *name, const char *text)
{
    char path[200];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s/%s", top, dir, name);
    file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    cr_assert_eq(fclose(file), 0);
}

static void put_number(const char *dir, const char *name, size_t n)
{
    char text[40];

    snprintf(text, sizeof(text), "%zu\n", n);
    put(dir, name, text);
}

/* Finds and reads the group a/b. */
static bool look(void)
{
    char dir[100];

    snprintf(dir, sizeof(dir), "%s/a/b", top);
    haki_cgroup_find(&group, dir);
    return haki_cgroup_read(&group, &state);
}

/* A group of version 2. */
static void group2(const char *dir, const char *max, const char *high,
                   size_t used)
{
    put(dir, "memory.max", max);
    put(dir, "memory.high", high);
    put_number(dir, "memory.current", used);
}

Test(cgroup, no_files_are_no_group)
{
    cr_expect_not(look());
    cr_expect_eq(group.kind, HAK_CGROUP_NONE);
    cr_expect_eq(state.limit, SIZE_MAX);
    cr_expect_eq(state.room, SIZE_MAX);
    cr_expect_eq(state.full, 0);
    cr_expect_eq(state.fault, HAK_CGROUP_FINE);
}

Test(cgroup, max_is_no_limit)
{
    group2("a/b", "max\n", "max\n", 5 * MB);
    cr_expect(look());
    cr_expect_eq(group.kind, HAK_CGROUP_V2);
    cr_expect_eq(state.limit, SIZE_MAX);
    cr_expect_eq(state.room, SIZE_MAX);
    cr_expect_eq(state.full, 0);
    cr_expect_eq(state.fault, HAK_CGROUP_FINE);
}

Test(cgroup, a_limit_and_what_is_left_of_it)
{
    group2("a/b", "104857600\n", "max\n", 30 * MB);
    cr_expect(look());
    cr_expect_eq(state.limit, 100 * MB);
    cr_expect_eq(state.room, 70 * MB);
    cr_expect_eq(state.full, 30);
}

/* What lies above high is slowed down: the room ends there. */
Test(cgroup, high_counts_for_the_room_and_not_as_the_limit)
{
    group2("a/b", "104857600\n", "52428800\n", 40 * MB);
    cr_expect(look());
    cr_expect_eq(state.limit, 100 * MB);
    cr_expect_eq(state.room, 10 * MB);
    cr_expect_eq(state.full, 80);
    group2("a/b", "104857600\n", "52428800\n", 60 * MB);
    cr_expect(look());
    cr_expect_eq(state.room, 0);
    cr_expect_eq(state.full, 100);
    cr_expect_eq(state.fault, HAK_CGROUP_FINE, "that is what high is for");
}

Test(cgroup, the_least_room_of_all_groups_binds)
{
    group2("a/b", "104857600\n", "max\n", 10 * MB);
    group2("a", "209715200\n", "max\n", 190 * MB);
    group2("", "max\n", "max\n", 900 * MB);
    cr_expect(look());
    cr_expect_eq(state.limit, 100 * MB);
    cr_expect_eq(state.room, 10 * MB);
    cr_expect_eq(state.full, 95);
    group2("", "83886080\n", "max\n", 75 * MB);
    cr_expect(look());
    cr_expect_eq(state.limit, 80 * MB);
    cr_expect_eq(state.room, 5 * MB);
}

/* The controller is not given to the lowest groups. */
Test(cgroup, a_group_without_files_has_those_of_the_one_above)
{
    group2("a", "104857600\n", "max\n", 10 * MB);
    cr_expect(look());
    cr_expect_eq(state.limit, 100 * MB);
    cr_expect_eq(state.room, 90 * MB);
}

Test(cgroup, version_1)
{
    put("a/b", "memory.limit_in_bytes", "104857600\n");
    put_number("a/b", "memory.usage_in_bytes", 25 * MB);
    put("a", "memory.limit_in_bytes", V1_NONE "\n");
    put_number("a", "memory.usage_in_bytes", 60 * MB);
    cr_expect(look());
    cr_expect_eq(group.kind, HAK_CGROUP_V1);
    cr_expect_eq(state.limit, 100 * MB);
    cr_expect_eq(state.room, 75 * MB);
    cr_expect_eq(state.full, 25);
}

Test(cgroup, file_pages_that_the_kernel_drops_do_not_count)
{
    group2("a/b", "104857600\n", "max\n", 95 * MB);
    put("a/b", "memory.stat",
        "anon 20971520\nfile 78643200\nkernel 10\n"
        "inactive_anon 20971520\nactive_anon 1\n"
        "inactive_file 52428800\nactive_file 26214400\n");
    cr_expect(look());
    cr_expect_eq(state.room, 55 * MB);
    cr_expect_eq(state.full, 45);
    put("a/b", "memory.stat", "anon 1\n");
    cr_expect(look());
    cr_expect_eq(state.room, 5 * MB);
    /* More than is in use: the two were read one after the other. */
    put("a/b", "memory.stat", "inactive_file 999999999999\n");
    cr_expect(look());
    cr_expect_eq(state.room, 100 * MB);
}

Test(cgroup, version_1_counts_file_pages_of_groups_below)
{
    put("a/b", "memory.limit_in_bytes", "104857600\n");
    put_number("a/b", "memory.usage_in_bytes", 90 * MB);
    put("a/b", "memory.stat",
        "cache 1\ninactive_file 5\ntotal_inactive_file 41943040\n");
    cr_expect(look());
    cr_expect_eq(state.room, 50 * MB);
}

Test(cgroup, processes_that_wait_for_memory)
{
    group2("a/b", "max\n", "max\n", MB);
    put("a/b", "memory.pressure",
        "some avg10=37.50 avg60=3.00 avg300=0.10 total=123\n"
        "full avg10=99.00 avg60=0.00 avg300=0.00 total=1\n");
    cr_expect(look());
    cr_expect_eq(state.pressure, 37);
    put("a/b", "memory.pressure", "nothing of the kind\n");
    cr_expect(look());
    cr_expect_eq(state.pressure, 0);
}

static void expect_garbled(const char *dir, const char *name, const char *text)
{
    char path[200];

    put(dir, name, text);
    cr_expect(look());
    cr_expect_eq(state.fault, HAK_CGROUP_GARBLED, "%s", text);
    snprintf(path, sizeof(path), "%s/%s/%s", top, dir, name);
    cr_expect_str_eq(state.fault_file, path);
    cr_expect_eq(state.fault_text[0], text[0] == '\n' ? '\0' : text[0]);
}

Test(cgroup, what_is_no_number_is_a_fault_and_no_limit)
{
    static const char *const texts[] = {
        "",
        "\n",
        "banana\n",
        "-1\n",
        "12M\n",
        "Max\n",
        "1.5\n",
        "0x10\n",
        "a word that is much longer than any number in such a file is\n"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        group2("a/b", "max\n", "max\n", 5 * MB);
        expect_garbled("a/b", "memory.max", texts[i]);
        cr_expect_eq(state.limit, SIZE_MAX);
        cr_expect_eq(state.room, SIZE_MAX);
        group2("a/b", "max\n", "max\n", 5 * MB);
        expect_garbled("a/b", "memory.high", texts[i]);
    }
    group2("a/b", "104857600\n", "max\n", 5 * MB);
    expect_garbled("a/b", "memory.current", "many\n");
    cr_expect_eq(state.limit, 100 * MB, "the limit is known still");
    cr_expect_eq(state.room, SIZE_MAX, "what is left of it is not");
}

Test(cgroup, what_is_in_use_may_be_missing)
{
    put("a/b", "memory.max", "104857600\n");
    cr_expect(look());
    cr_expect_eq(state.limit, 100 * MB);
    cr_expect_eq(state.room, SIZE_MAX);
    cr_expect_eq(state.fault, HAK_CGROUP_FINE);
}

Test(cgroup, a_limit_below_what_is_in_use_is_a_fault)
{
    group2("a/b", "104857600\n", "max\n", 130 * MB);
    cr_expect(look());
    cr_expect_eq(state.fault, HAK_CGROUP_OVER);
    cr_expect_eq(state.fault_limit, 100 * MB);
    cr_expect_eq(state.fault_used, 130 * MB);
    cr_expect_eq(state.room, 0);
    cr_expect_eq(state.full, 100);
}

Test(cgroup, numbers_at_their_ends)
{
    group2("a/b", "0\n", "max\n", 0);
    cr_expect(look());
    cr_expect_eq(state.limit, 0);
    cr_expect_eq(state.full, 100);
    group2("a/b", "18446744073709551615\n", "max\n", 0);
    cr_expect(look());
    cr_expect_eq(state.limit, SIZE_MAX);
    group2("a/b", "99999999999999999999999\n", "max\n", 0);
    cr_expect(look());
    cr_expect_eq(state.limit, SIZE_MAX);
    cr_expect_eq(state.fault, HAK_CGROUP_FINE);
    group2("a/b", "104857600", "max", MB); /* no newline */
    cr_expect(look());
    cr_expect_eq(state.limit, 100 * MB);
}

Test(cgroup, a_group_that_goes)
{
    char path[200];

    group2("a/b", "104857600\n", "max\n", 30 * MB);
    cr_expect(look());
    snprintf(path, sizeof(path), "%s/a/b/memory.max", top);
    cr_assert_eq(unlink(path), 0);
    cr_expect_not(haki_cgroup_read(&group, &state));
    cr_expect_eq(state.limit, SIZE_MAX);
}

/* As the machine has it: whatever that is, it is read without harm. */
Test(cgroup, the_own_group)
{
    errno = 123;
    haki_cgroup_find(&group, NULL);
    cr_expect_eq(errno, 123);
    cr_expect_eq(haki_cgroup_read(&group, &state),
                 group.kind != HAK_CGROUP_NONE);
    cr_expect_eq(errno, 123);
    cr_expect_eq(state.fault, HAK_CGROUP_FINE, "%s", state.fault_file);
}

Test(cgroup, a_name_that_is_too_long_is_no_group)
{
    static char name[2 * HAK_CGROUP_PATH];

    memset(name, 'a', sizeof(name) - 1);
    name[0] = '/';
    haki_cgroup_find(&group, name);
    cr_expect_eq(group.kind, HAK_CGROUP_NONE);
    cr_expect_not(haki_cgroup_read(&group, &state));
}

/* ---- limits on address space ---------------------------------------------- */

static void limit_by(int resource, size_t percent)
{
    size_t used = unit_address_space();
    struct rlimit limit = {used * 100 / percent, used * 100 / percent};

    NEED(setrlimit(resource, &limit) == 0);
}

static void no_rlimit(void *arg)
{
    (void)arg;
    NEED(haki_cgroup_rlimits() == 0);
}

static void address_space(void *arg)
{
    size_t full;

    (void)arg;
    limit_by(RLIMIT_AS, 60);
    full = haki_cgroup_rlimits();
    NEED(full >= 55 && full <= 65);
}

Test(cgroup, limits_on_address_space)
{
    UNIT_SKIP_IF_WATCHED("the address space is the watcher's");
    unit_expect_ok(no_rlimit, NULL);
    unit_expect_ok(address_space, NULL);
}
