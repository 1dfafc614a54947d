/*
 * plain.c - runs the tests of a program that was compiled with criterion.h of this
 * folder: each in a forked child, some side by side, stopped when its time is up.
 *
 *     PROGRAM [--jobs=N] [--filter=SUITE/NAME] [any other option is ignored]
 *
 * The parent allocates nothing, in any way: a child's HAKMEM is as at the start.
 * Obeys HAKMEM_TEST_SLOW (a test may take so many times as long as it says).
 */
#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

enum { JOBS_MOST = 16, PASSED = 0, FAILED = 1, SKIPPED = 77 };

/* A child that runs a test; pid 0: free. */
struct job {
    pid_t pid;
    struct plain_test *test;
    double until; /* 0: it may take for ever */
};

void *plain_param;

static struct plain_test *tests, **tests_end = &tests;
static struct plain_suite *suites;
static struct job jobs[JOBS_MOST];
static int tested, passing, failing, crashing;

/* In a child. */
static struct plain_test *current;
static pid_t current_pid;
static volatile bool current_failed;

void plain_add(struct plain_test *test)
{
    *tests_end = test;
    tests_end = &test->next;
}

void plain_add_suite(struct plain_suite *suite)
{
    suite->next = suites;
    suites = suite;
}

/* ---- what a test calls ---------------------------------------------------- */

static void say(const char *begin, const char *format, va_list args)
{
    char text[4096];
    int length = vsnprintf(text, sizeof(text), format, args);

    dprintf(STDERR_FILENO, "%s%.*s\n", begin, length, text);
}

void plain_say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say("[----] ", format, args);
    va_end(args);
}

void plain_end(void)
{
    fflush(NULL);
    _exit(FAILED);
}

void plain_fail(const char *file, int line, const char *what,
                const char *format, ...)
{
    char begin[512];
    va_list args;

    snprintf(begin, sizeof(begin), "[----] %s:%d: not so: %s: ", file, line,
             what);
    va_start(args, format);
    say(begin, format, args);
    va_end(args);
    current_failed = true;
}

void plain_skip(const char *format, ...)
{
    char begin[256];
    va_list args;

    snprintf(begin, sizeof(begin), "[SKIP] %s::%s: ", current->suite,
             current->name);
    va_start(args, format);
    say(begin, format, args);
    va_end(args);
    _exit(SKIPPED);
}

/* ---- a child ---------------------------------------------------------------- */

static struct plain_options suite_of(const struct plain_test *test)
{
    for (struct plain_suite *suite = suites; suite != NULL;
         suite = suite->next) {
        if (strcmp(suite->name, test->suite) == 0) {
            return suite->options;
        }
    }
    return (struct plain_options){.timeout = 0};
}

/* A test that calls exit in its middle has not passed. */
static void child_ended_early(void)
{
    if (getpid() == current_pid && current != NULL) {
        _exit(FAILED);
    }
}

static void child_run(struct plain_test *test)
{
    struct plain_options suite = suite_of(test);

    current = test;
    current_pid = getpid();
    atexit(child_ended_early);
    if (suite.init != NULL) {
        suite.init();
    }
    if (test->options.init != NULL) {
        test->options.init();
    }
    test->run();
    if (test->options.fini != NULL) {
        test->options.fini();
    }
    if (suite.fini != NULL) {
        suite.fini();
    }
    current = NULL;
    exit(current_failed ? FAILED : PASSED);
}

/* ---- the parent --------------------------------------------------------------- */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double slow(void)
{
    const char *text = getenv("HAKMEM_TEST_SLOW");

    return text != NULL && atof(text) > 0 ? atof(text) : 1;
}

static void start(struct job *job, struct plain_test *test, void *param)
{
    double most = test->options.timeout > 0 ? test->options.timeout
                                            : suite_of(test).timeout;

    fflush(NULL);
    job->test = test;
    job->until = most > 0 ? now() + most * slow() : 0;
    job->pid = fork();
    if (job->pid == 0) {
        setpgid(0, 0);
        plain_param = param;
        child_run(test);
    }
    tested++;
}

static void ended(struct job *job, int status, bool late)
{
    bool exited = WIFEXITED(status);
    const char *word = exited && WEXITSTATUS(status) == PASSED    ? "PASS"
                       : exited && WEXITSTATUS(status) == SKIPPED ? NULL
                                                                  : "FAIL";

    if (word == NULL || word[0] == 'P') {
        passing++;
    } else {
        failing += exited;
        crashing += !exited;
    }
    if (word != NULL) {
        printf("[%s] %s::%s: %s %#x\n", word, job->test->suite, job->test->name,
               late ? "its time was up" : "status", (unsigned)status);
        fflush(stdout);
    }
    kill(-job->pid, SIGKILL);
    job->pid = 0;
}

/* One look at a child. */
static void look(struct job *job)
{
    bool late = job->until > 0 && now() > job->until;
    int status;

    if (late) {
        kill(-job->pid, SIGKILL);
        kill(job->pid, SIGKILL);
    }
    if (waitpid(job->pid, &status, late ? 0 : WNOHANG) == job->pid) {
        ended(job, status, late);
    }
}

/* A free job of `count`, once there is one. */
static struct job *job_free(int count)
{
    for (;;) {
        for (int i = 0; i < count; i++) {
            if (jobs[i].pid != 0) {
                look(&jobs[i]);
            }
            if (jobs[i].pid == 0) {
                return &jobs[i];
            }
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

static void run(struct plain_test *test, int count)
{
    struct plain_params params = {NULL, 0, 1};

    if (test->params != NULL) {
        params = test->params();
    }
    for (size_t i = 0; i < params.count; i++) {
        start(job_free(count), test, params.first + i * params.size);
    }
}

static bool wanted(const struct plain_test *test, const char *filter)
{
    char name[256];

    snprintf(name, sizeof(name), "%s/%s", test->suite, test->name);
    return !test->options.disabled && !suite_of(test).disabled &&
           (filter == NULL || fnmatch(filter, name, 0) == 0);
}

int main(int argc, char **argv)
{
    const char *filter = NULL;
    int count = 1;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--jobs=", 7) == 0) {
            count = atoi(argv[i] + 7);
        } else if (strncmp(argv[i], "--filter=", 9) == 0) {
            filter = argv[i] + 9;
        }
    }
    count = count < 1 ? 1 : count > JOBS_MOST ? JOBS_MOST : count;
    for (struct plain_test *test = tests; test != NULL; test = test->next) {
        if (wanted(test, filter)) {
            run(test, count);
        }
    }
    for (int i = 0; i < count; i++) {
        while (jobs[i].pid != 0) {
            look(&jobs[i]);
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        }
    }
    printf(
        "[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing:"
        " %d\n",
        tested, passing, failing, crashing);
    return failing + crashing > 0;
}
