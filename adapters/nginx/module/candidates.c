
/*
 * candidates.c - the names that hakmem_objects accepts, for the error line
 * about a wrong one.
 */


#include <module/module.h>
#include <patch/patch.h>

#include <link.h>


typedef struct {
    u_char  *start;
    u_char  *p;
    u_char  *last;
} ngx_hakmem_names_t;


static int ngx_hakmem_loaded_one(struct dl_phdr_info *info, size_t size,
    void *arg);


/* writes them between buf and last, separated by commas; returns the end */

u_char *
ngx_hakmem_loaded(u_char *buf, u_char *last)
{
    ngx_hakmem_names_t  names;

    names.start = buf;
    names.p = buf;
    names.last = last;

    (void) dl_iterate_phdr(ngx_hakmem_loaded_one, &names);

    return names.p;
}


/*
 * a file's name up to ".so", which is enough to name it; Perl's nginx.so is not
 * "nginx", which means the program
 */

static int
ngx_hakmem_loaded_one(struct dl_phdr_info *info, size_t size, void *arg)
{
    ngx_hakmem_names_t  *names = arg;

    size_t       len;
    u_char       name[128];
    const char  *file, *so;

    file = strrchr(info->dlpi_name, '/');
    file = file ? file + 1 : info->dlpi_name;

    if (*file == '\0') {
        file = "nginx";
    }

    so = ngx_strcmp(file, "nginx.so") ? strstr(file, ".so") : NULL;
    len = so ? (size_t) (so - file) : ngx_strlen(file);

    if (len >= sizeof(name)) {
        return 0;
    }

    (void) ngx_cpystrn(name, (u_char *) file, len + 1);

    if (ngx_strncmp(name, "linux-", 6) != 0       /* the kernel's own */
        && hak_ngx_find((char *) name) == HAK_NGX_LOADED)
    {
        names->p = ngx_slprintf(names->p, names->last, "%s%s",
                                names->p == names->start ? "" : ", ", name);
    }

    return 0;
}
