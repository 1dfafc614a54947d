/*
 * criterion.c - runs a program's tests; see criterion/criterion.h.
 *
 *     PROGRAM [--jobs=N] [--filter=SUITE/NAME]      others are ignored
 *
 * Obeys: HAKMEM_TEST_UNDER (an emulator, with its options, that runs each test),
 * HAKMEM_TEST_SLOW (a test may take so many times as long as it says).
 *
 * Prints, as Criterion does, [PASS], [FAIL] or [SKIP] for each test and a line of
 * sums. Each test is this program once more, `PROGRAM --run NUMBER PARAMETER`, whose
 * end of a pipe gets a byte for every assertion that failed, or 's' for a test that
 * left itself out.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

extern const struct cr_test *const __start_cr_tests[], *const __stop_cr_tests[];

/* The pipe's descriptor; the most at once; the most words of an emulator. */
enum { SAYS = 199, JOBS = 16, UNDER_WORDS = 16 };

static struct job {
    pid_t pid; /* 0: none */
    int from;
    const struct cr_test *test;
    double end; /* when its time is up; 0: never */
} jobs[JOBS];

static int tested, passing, failing, crashing;
static const char *running = "";
static char *program;

static void say(char what)
{
    if (write(SAYS, &what, 1) != 1) {
        _exit(3);
    }
}

void cr_failed(bool fatal, const char *file, int line, const char *what,
               const char *format, ...)
{
    va_list rest;

    va_start(rest, format);
    fprintf(stderr, "[----] %s: %s:%d: assertion failed: %s:", running, file,
            line, what);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    va_end(rest);
    say('f');
    if (fatal) {
        _exit(1);
    }
}

void cr_skipped(const char *format, ...)
{
    va_list rest;

    va_start(rest, format);
    fprintf(stderr, "[SKIP] %s:", running);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    va_end(rest);
    say('s');
    _exit(0);
}

void cr_log_warn(const char *format, ...)
{
    va_list rest;

    va_start(rest, format);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    va_end(rest);
}

static double now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static struct cr_options suite_of(const struct cr_test *test)
{
    for (const struct cr_test *const *at = __start_cr_tests;
         at < __stop_cr_tests; at++) {
        if ((*at)->name == NULL && strcmp((*at)->suite, test->suite) == 0) {
            return (*at)->options;
        }
    }
    return (struct cr_options){.timeout = 0};
}

/* In the process that was started for it. */
static int run_test(const struct cr_test *test, size_t parameter)
{
    struct cr_options suite = suite_of(test);
    static char name[200];

    snprintf(name, sizeof name, "%s::%s", test->suite, test->name);
    running = name;
    fcntl(SAYS, F_SETFD, FD_CLOEXEC);
    if (suite.init != NULL) {
        suite.init();
    }
    if (test->options.init != NULL) {
        test->options.init();
    }
    if (test->params != NULL) {
        struct criterion_test_params all = test->params();

        ((void (*)(void *))test->run)((char *)all.params +
                                      parameter * all.size);
    } else {
        test->run();
    }
    if (test->options.fini != NULL) {
        test->options.fini();
    }
    if (suite.fini != NULL) {
        suite.fini();
    }
    return 0;
}

/* What the test has said, and how it ended. */
static void ended(struct job *job, int status, bool late)
{
    const struct cr_test *test = job->test;
    char bytes[256];
    ssize_t got = read(job->from, bytes, sizeof bytes);

    close(job->from);
    job->pid = 0;
    if (got > 0 && memchr(bytes, 'f', (size_t)got) == NULL) {
        return; /* left out */
    }
    tested++;
    if (late || WIFSIGNALED(status)) {
        crashing++;
        printf("[FAIL] %s::%s: %s %d\n", test->suite, test->name,
               late ? "timed out" : "ended by signal",
               late ? 0 : WTERMSIG(status));
    } else if (got > 0 || WEXITSTATUS(status) != 0) {
        failing++;
        printf("[FAIL] %s::%s: status %d\n", test->suite, test->name,
               WEXITSTATUS(status));
    } else {
        passing++;
        printf("[PASS] %s::%s\n", test->suite, test->name);
    }
}

/* Waits until one of the jobs' places is free; NULL: none runs any more. */
static struct job *place(int count, bool all)
{
    for (;;) {
        int busy = 0;

        for (int i = 0; i < count; i++) {
            struct job *job = &jobs[i];
            int status;

            if (job->pid == 0) {
                if (!all) {
                    return job;
                }
                continue;
            }
            busy++;
            if (waitpid(job->pid, &status, WNOHANG) == job->pid) {
                ended(job, status, false);
            } else if (job->end != 0 && now() > job->end) {
                kill(job->pid, SIGKILL);
                waitpid(job->pid, &status, 0);
                ended(job, status, true);
            }
        }
        if (busy == 0 && all) {
            return NULL;
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

/* How many times as long as it says a test may take. */
static double slow(void)
{
    const char *text = getenv("HAKMEM_TEST_SLOW");

    return text != NULL && atof(text) > 0 ? atof(text) : 1;
}

/* In a new process: becomes this program once more, an emulator's where it runs it,
 * which can't be started by the name that the kernel has for itself. */
static void become(char *one, char *other)
{
    const char *under = getenv("HAKMEM_TEST_UNDER");
    char *words[UNDER_WORDS + 5], *text = under != NULL ? strdup(under) : NULL;
    int count = 0;

    for (char *word = text != NULL ? strtok(text, " ") : NULL;
         word != NULL && count < UNDER_WORDS; word = strtok(NULL, " ")) {
        words[count++] = word;
    }
    words[count] = count > 0 ? program : "test";
    words[count + 1] = "--run";
    words[count + 2] = one;
    words[count + 3] = other;
    words[count + 4] = NULL;
    execvp(count > 0 ? words[0] : "/proc/self/exe", words);
}

static void start(struct job *job, const struct cr_test *test, size_t number,
                  size_t parameter)
{
    char one[24], other[24];
    double limit = test->options.timeout;
    int ends[2];

    if (limit == 0) {
        limit = suite_of(test).timeout;
    }
    snprintf(one, sizeof one, "%zu", number);
    snprintf(other, sizeof other, "%zu", parameter);
    fflush(NULL);
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        perror("pipe2");
        exit(3);
    }
    job->pid = fork();
    if (job->pid < 0) {
        perror("fork");
        exit(3);
    }
    if (job->pid == 0) {
        dup2(ends[1], SAYS);
        become(one, other);
        _exit(3);
    }
    close(ends[1]);
    job->from = ends[0];
    job->test = test;
    job->end = limit == 0 ? 0 : now() + limit * slow();
}

static bool is_wanted(const struct cr_test *test, const char *filter)
{
    size_t suite = strlen(test->suite);

    if (test->name == NULL || test->options.disabled) {
        return false;
    }
    return filter == NULL || (strncmp(filter, test->suite, suite) == 0 &&
                              (strcmp(filter + suite, "/*") == 0 ||
                               (filter[suite] == '/' &&
                                strcmp(filter + suite + 1, test->name) == 0)));
}

int main(int argc, char **argv)
{
    size_t count = (size_t)(__stop_cr_tests - __start_cr_tests);
    const char *filter = NULL;
    int most = 2;

    if (argc == 4 && strcmp(argv[1], "--run") == 0) {
        return run_test(__start_cr_tests[strtoul(argv[2], NULL, 10)],
                        strtoul(argv[3], NULL, 10));
    }
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--filter=", 9) == 0) {
            filter = argv[i] + 9;
        } else if (strncmp(argv[i], "--jobs=", 7) == 0) {
            most = atoi(argv[i] + 7);
        }
    }
    program = argv[0];
    most = most < 1 ? 1 : most > JOBS ? JOBS : most;
    for (size_t i = 0; i < count; i++) {
        const struct cr_test *test = __start_cr_tests[i];
        size_t times = test->params != NULL ? test->params().length : 1;

        for (size_t k = 0; is_wanted(test, filter) && k < times; k++) {
            start(place(most, false), test, i, k);
        }
    }
    place(most, true);
    printf("[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | "
           "Crashing: %d\n",
           tested, passing, failing + crashing, crashing);
    return failing + crashing != 0;
}
