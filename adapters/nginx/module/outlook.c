
/*
 * outlook.c - finds out whether workers will be served, before there are any.
 *
 * That takes a process that does what a worker does: make the range, write
 * slots. So a process is forked that does this, reports and ends; the process
 * that reads the configuration itself is not served. The forked process can't
 * foresee what happens to a worker later: its user's limits, and what modules
 * load when it starts.
 */


#include <module/module.h>

#include <poll.h>


#define NGX_HAKMEM_PATIENCE  10000


static ngx_int_t ngx_hakmem_try(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf,
    ngx_hakmem_worker_t *worker);
static void ngx_hakmem_try_child(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf,
    ngx_fd_t fd);
static ngx_int_t ngx_hakmem_try_read(ngx_fd_t fd, ngx_pid_t pid,
    ngx_hakmem_worker_t *worker);


char *
ngx_hakmem_outlook(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf)
{
    char                *not;
    ngx_hakmem_worker_t  worker;

    if (ngx_process == NGX_PROCESS_SIGNALLER
        || (!hcf->require && (!ngx_test_config || ngx_quiet_mode)))
    {
        return NGX_CONF_OK;
    }

    ngx_memzero(&worker, sizeof(ngx_hakmem_worker_t));

    if (ngx_hakmem_try(cycle, hcf, &worker) != NGX_OK) {
        worker.state = NGX_HAKMEM_SYSTEM;
    }

    not = (worker.state == NGX_HAKMEM_SYSTEM) ? "not " : "";

    if (hcf->require
        && (worker.state == NGX_HAKMEM_SYSTEM || worker.left_out))
    {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "hakmem: workers would not be served%s: %s; required by "
                      "\"hakmem on require\" in %V:%ui",
                      worker.left_out ? " as a whole" : "", worker.text,
                      &hcf->require_file, hcf->require_line);

        return NGX_CONF_ERROR;
    }

    if (ngx_test_config && !ngx_quiet_mode) {
        ngx_log_stderr(0, "hakmem: workers will %sbe served: %s%s%s", not,
                       worker.state == NGX_HAKMEM_MODULE ? "by the module, "
                                                         : "",
                       worker.text,
                       worker.state == NGX_HAKMEM_MODULE
                       ? " (tried in a process of its own; not tried: the "
                         "workers' user, what workers load)"
                       : "");
    }

    return NGX_CONF_OK;
}


/*
 * Signals are blocked until the child is gone: nginx's SIGCHLD handler would
 * reap it. It runs afterwards and finds nothing.
 */

static ngx_int_t
ngx_hakmem_try(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf,
    ngx_hakmem_worker_t *worker)
{
    sigset_t   set, old;
    ngx_fd_t   fd[2];
    ngx_pid_t  pid;
    ngx_int_t  rc;

    if (pipe2(fd, O_CLOEXEC) == -1) {
        ngx_sprintf((u_char *) worker->text, "it could not be tried: no pipe%Z");
        return NGX_ERROR;
    }

    sigfillset(&set);
    (void) sigprocmask(SIG_BLOCK, &set, &old);

    pid = fork();

    if (pid == 0) {
        ngx_hakmem_try_child(cycle, hcf, fd[1]);
        _exit(0);
    }

    (void) ngx_close_file(fd[1]);

    if (pid == -1) {
        ngx_sprintf((u_char *) worker->text,
                    "it could not be tried: fork() failed%Z");
        rc = NGX_ERROR;

    } else {
        rc = ngx_hakmem_try_read(fd[0], pid, worker);
    }

    (void) ngx_close_file(fd[0]);
    (void) sigprocmask(SIG_SETMASK, &old, NULL);

    return rc;
}


/* what a worker does, with a log that nobody reads */

static void
ngx_hakmem_try_child(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf, ngx_fd_t fd)
{
    ngx_log_t    log;
    ngx_cycle_t  silent;

    log = *cycle->log;
    log.log_level = NGX_LOG_STDERR;

    silent = *cycle;
    silent.log = &log;

    ngx_hakmem_begin(&silent, hcf);

    (void) ngx_write_fd(fd, &ngx_hakmem_worker, sizeof(ngx_hakmem_worker_t));
}


static ngx_int_t
ngx_hakmem_try_read(ngx_fd_t fd, ngx_pid_t pid, ngx_hakmem_worker_t *worker)
{
    int            status;
    ssize_t        n;
    struct pollfd  pfd;

    pfd.fd = fd;
    pfd.events = POLLIN;
    n = 0;

    if (poll(&pfd, 1, NGX_HAKMEM_PATIENCE) == 1) {
        n = ngx_read_fd(fd, worker, sizeof(ngx_hakmem_worker_t));

    } else {
        (void) kill(pid, SIGKILL);
    }

    status = 0;

    while (waitpid(pid, &status, 0) == -1 && ngx_errno == NGX_EINTR) {
        /* void */
    }

    if (n == sizeof(ngx_hakmem_worker_t)) {
        return NGX_OK;
    }

    /* up to PIPE_BUF bytes are written as a whole or not at all */

    ngx_memzero(worker, sizeof(ngx_hakmem_worker_t));

    if (WIFSIGNALED(status)) {
        ngx_sprintf((u_char *) worker->text,
                    "the process that tried it was ended by signal %d%Z",
                    WTERMSIG(status));

    } else {
        ngx_sprintf((u_char *) worker->text,
                    "the process that tried it did not tell%Z");
    }

    return NGX_ERROR;
}
