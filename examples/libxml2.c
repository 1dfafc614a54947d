/*
 * libxml2.c - libxml2 on HAKMEM: one set of functions for the whole process.
 *
 * xmlMemSetup is called before xmlInitParser, and never again, because blocks
 * of the old functions would then be passed to the new ones. libxml2 frees in
 * one thread what another allocated, so it gets the process-wide functions. If
 * a document is too large for hak_set_limit's limit, xmlReadMemory returns
 * NULL.
 */
#include "example.h"

#include <libxml/parser.h>
#include <libxml/tree.h>
#include <libxml/xmlmemory.h>
#include <libxml/xpath.h>

static char *copy(const char *text)
{
    size_t size = strlen(text) + 1;
    char *p = hak_malloc(size);

    return p != NULL ? memcpy(p, text, size) : NULL;
}

static void use_hakmem(void)
{
    NEED(xmlMemSetup(hak_free, hak_malloc, hak_realloc, copy) == 0);
}

/* Makes a document of `count` records; the caller frees it. */
static char *make_text(int count, size_t *size)
{
    char *text = malloc((size_t)count * 120 + 20);
    char *at = text;

    NEED(text != NULL);
    at += sprintf(at, "<all>");
    for (int i = 0; i < count; i++) {
        at += sprintf(at,
                      "<record id='%d'><name>name %d</name><value unit='m'>%d"
                      "</value></record>",
                      i, i * 7919 % 10007, i);
    }
    at += sprintf(at, "</all>");
    *size = (size_t)(at - text);
    return text;
}

/* 1: parsed and searched; 0: there was no memory. */
static int work(const char *text, size_t size, int count)
{
    xmlDoc *doc = xmlReadMemory(text, (int)size, "all.xml", NULL,
                                XML_PARSE_NOERROR | XML_PARSE_HUGE);
    xmlXPathContext *context;
    xmlXPathObject *found;

    if (doc == NULL) {
        /*
         * xmlGetLastError may be about something later, at the document's end
         */
        xmlResetLastError();
        return 0;
    }
    context = xmlXPathNewContext(doc);
    found = xmlXPathEvalExpression(
        (const xmlChar *)"/all/record[value mod 3 = 0]/name", context);
    NEED(found != NULL && found->nodesetval->nodeNr == (count + 2) / 3);
    xmlXPathFreeObject(found);
    xmlXPathFreeContext(context);
    xmlFreeDoc(doc);
    return 1;
}

int main(int argc, char **argv)
{
    enum mode mode = example_mode(argc, argv);
    size_t small_size, large_size;
    char *small = make_text(20, &small_size);
    char *large = make_text(6000, &large_size);

    if (mode != LIBC) {
        use_hakmem();
    }
    xmlInitParser();
    for (int i = 0; i < 200; i++) {
        NEED(work(small, small_size, 20));
    }
    if (mode == LIMIT) {
        hak_set_limit(4 << 20);
        NEED(!work(large, large_size, 6000));
        NEED(work(small, small_size, 20)); /* it still works */
        example_report_process();
        hak_set_limit(0);
    }
    NEED(work(large, large_size, 6000));
    if (mode == HAKMEM) {
        example_report_process();
    }
    xmlCleanupParser();
    free(small);
    free(large);
    return 0;
}
