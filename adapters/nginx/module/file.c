
/*
 * file.c - whether the files of our code are still the ones that run.
 *
 * The module is never unloaded, and a path that is already loaded is not opened
 * again: after a new file has been installed a reload goes on with the old
 * code. The same is true of a preloaded library. We compare the file's
 * contents, so that neither a new date nor the same file installed again counts
 * as an upgrade; they are read again only when something about the file has
 * changed.
 */


#include <module/module.h>

#include <dlfcn.h>


#define NGX_HAKMEM_FILE_CHUNK  4096
#define NGX_HAKMEM_FILES       2         /* the module, a preloaded library */


typedef struct {
    dev_t                dev;
    ino_t                ino;
    off_t                size;
    struct timespec      mtime;
    struct timespec      ctime;
    uint32_t             crc32;
} ngx_hakmem_print_t;


typedef struct {
    char                 path[NGX_MAX_PATH];
    ngx_hakmem_print_t   loaded;
    ngx_hakmem_print_t   seen;           /* by the last check */
} ngx_hakmem_file_t;


static ngx_int_t ngx_hakmem_file_path(const char *name, u_char *path);
static ngx_hakmem_file_e ngx_hakmem_file_compare(ngx_hakmem_file_t *file);
static ngx_int_t ngx_hakmem_file_info(ngx_hakmem_file_t *file,
    ngx_hakmem_print_t *print);
static ngx_int_t ngx_hakmem_file_read(ngx_hakmem_file_t *file,
    ngx_hakmem_print_t *print);
static ngx_uint_t ngx_hakmem_file_is(ngx_hakmem_print_t *one,
    ngx_hakmem_print_t *two);


static ngx_hakmem_file_t  ngx_hakmem_file[NGX_HAKMEM_FILES];
static ngx_uint_t         ngx_hakmem_nfiles;


/* address: in a loaded object; files that can't be read are not watched */

void
ngx_hakmem_file_watch(void *address)
{
    u_char              path[NGX_MAX_PATH];
    Dl_info             info;
    ngx_uint_t          i;
    ngx_hakmem_file_t  *file;

    if (dladdr(address, &info) == 0
        || ngx_hakmem_file_path(info.dli_fname, path) != NGX_OK)
    {
        return;
    }

    for (i = 0; i < ngx_hakmem_nfiles; i++) {
        if (ngx_strcmp(ngx_hakmem_file[i].path, path) == 0) {
            return;
        }
    }

    if (i == NGX_HAKMEM_FILES) {
        return;
    }

    file = &ngx_hakmem_file[i];

    (void) ngx_cpystrn((u_char *) file->path, path, NGX_MAX_PATH);

    if (ngx_hakmem_file_info(file, &file->loaded) == NGX_OK
        && ngx_hakmem_file_read(file, &file->loaded) == NGX_OK)
    {
        file->seen = file->loaded;
        ngx_hakmem_nfiles++;
    }
}


/*
 * Makes the path absolute: with "nginx -p relative/" names are relative, and a
 * worker looks from its "working_directory".
 */

static ngx_int_t
ngx_hakmem_file_path(const char *name, u_char *path)
{
    size_t  len;

    len = 0;

    if (name[0] != '/') {

        if (getcwd((char *) path, NGX_MAX_PATH - 1) == NULL) {
            return NGX_ERROR;
        }

        len = ngx_strlen(path);
        path[len++] = '/';
    }

    if (ngx_strlen(name) >= NGX_MAX_PATH - len) {
        return NGX_ERROR;
    }

    (void) ngx_cpystrn(path + len, (u_char *) name, NGX_MAX_PATH - len);

    return NGX_OK;
}


ngx_hakmem_file_e
ngx_hakmem_file_check(const char **path)
{
    ngx_uint_t         i;
    ngx_hakmem_file_e  rc;

    for (i = 0; i < ngx_hakmem_nfiles; i++) {
        rc = ngx_hakmem_file_compare(&ngx_hakmem_file[i]);

        if (rc != NGX_HAKMEM_FILE_SAME) {
            *path = ngx_hakmem_file[i].path;
            return rc;
        }
    }

    *path = "";

    return NGX_HAKMEM_FILE_SAME;
}


void
ngx_hakmem_file_report(ngx_cycle_t *cycle)
{
    const char         *path;
    ngx_hakmem_file_e   file;

    file = ngx_hakmem_file_check(&path);

    if (file == NGX_HAKMEM_FILE_SAME) {
        return;
    }

    /* at the default level of nginx's log */

    ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                  "hakmem: \"%s\" %s since nginx started; a reload keeps "
                  "running the old code (%s); to load the new file send "
                  "USR2 to the master, then QUIT to the old one",
                  path,
                  file == NGX_HAKMEM_FILE_GONE ? "is gone" : "was replaced",
                  hak_version());
}


static ngx_hakmem_file_e
ngx_hakmem_file_compare(ngx_hakmem_file_t *file)
{
    ngx_hakmem_print_t  now;

    if (ngx_hakmem_file_info(file, &now) != NGX_OK) {
        return (ngx_errno == NGX_ENOENT) ? NGX_HAKMEM_FILE_GONE
                                         : NGX_HAKMEM_FILE_SAME;
    }

    if (!ngx_hakmem_file_is(&now, &file->seen)) {

        if (ngx_hakmem_file_read(file, &now) != NGX_OK) {
            return NGX_HAKMEM_FILE_SAME;
        }

        file->seen = now;
    }

    return (file->seen.size == file->loaded.size
            && file->seen.crc32 == file->loaded.crc32)
           ? NGX_HAKMEM_FILE_SAME : NGX_HAKMEM_FILE_REPLACED;
}


static ngx_int_t
ngx_hakmem_file_info(ngx_hakmem_file_t *file, ngx_hakmem_print_t *print)
{
    ngx_file_info_t  fi;

    if (ngx_file_info(file->path, &fi) == NGX_FILE_ERROR) {
        return NGX_ERROR;
    }

    print->dev = fi.st_dev;
    print->ino = fi.st_ino;
    print->size = fi.st_size;
    print->mtime = fi.st_mtim;
    print->ctime = fi.st_ctim;

    return NGX_OK;
}


static ngx_int_t
ngx_hakmem_file_read(ngx_hakmem_file_t *file, ngx_hakmem_print_t *print)
{
    u_char    buf[NGX_HAKMEM_FILE_CHUNK];
    ssize_t   n;
    ngx_fd_t  fd;

    fd = open(file->path, O_RDONLY|O_CLOEXEC);
    if (fd == NGX_INVALID_FILE) {
        return NGX_ERROR;
    }

    ngx_crc32_init(print->crc32);

    while ((n = ngx_read_fd(fd, buf, sizeof(buf))) > 0) {
        ngx_crc32_update(&print->crc32, buf, n);
    }

    ngx_crc32_final(print->crc32);

    (void) ngx_close_file(fd);

    return (n == 0) ? NGX_OK : NGX_ERROR;
}


static ngx_uint_t
ngx_hakmem_file_is(ngx_hakmem_print_t *one, ngx_hakmem_print_t *two)
{
    return one->dev == two->dev
           && one->ino == two->ino
           && one->size == two->size
           && one->mtime.tv_sec == two->mtime.tv_sec
           && one->mtime.tv_nsec == two->mtime.tv_nsec
           && one->ctime.tv_sec == two->ctime.tv_sec
           && one->ctime.tv_nsec == two->ctime.tv_nsec;
}
