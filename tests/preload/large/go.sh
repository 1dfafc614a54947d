#!/bin/bash
# go - Go: builds a program with cgo and one without, runs its tests; threads of
# C's and of Go's own that hand each other memory.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

export GOPROXY=off GOFLAGS=-mod=mod GOTOOLCHAIN=local GO111MODULE=on \
    GOCACHE=$PWD/cache GOPATH=$PWD/path GOTELEMETRY=off
PATH=/usr/bin:$PATH
mkdir mixed pure
cat >mixed/go.mod <<'CODE'
module example/mixed
CODE
cp mixed/go.mod pure
cat >mixed/main.go <<'CODE'
package main

/*
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
static char *twice(const char *s)
{
    size_t n = strlen(s);
    char *p = malloc(2 * n + 1);
    memcpy(p, s, n);
    memcpy(p + n, s, n + 1);
    return p;
}
static void *run(void *arg)
{
    char *p = malloc(100);
    strcpy(p, "from a thread of C");
    free(arg);
    return p;
}
static char *threaded(void)
{
    pthread_t t;
    void *p;
    if (pthread_create(&t, NULL, run, malloc(2000)) || pthread_join(t, &p))
        abort();
    return p;
}
*/
import "C"

import (
    "crypto/sha256"
    "fmt"
    "os/exec"
    "sort"
    "strings"
    "sync"
    "unsafe"
)

func Work(seed int) string {
    var kept []unsafe.Pointer
    sum := sha256.New()
    for i := 0; i < 3000; i++ {
        s := C.CString(strings.Repeat(fmt.Sprint(i*seed%97), 1+i%50))
        t := C.twice(s)
        fmt.Fprint(sum, C.GoString(t))
        kept = append(kept, unsafe.Pointer(s))
        C.free(unsafe.Pointer(t))
        if i%7 == 0 {
            p := C.malloc(C.size_t(1 + i*100))
            C.memset(p, C.int(i&255), C.size_t(1+i*100))
            sum.Write(C.GoBytes(p, C.int(1+i)))
            kept = append(kept, p)
        }
    }
    p := C.threaded()
    fmt.Fprint(sum, C.GoString(p))
    C.free(unsafe.Pointer(p))
    for _, p := range kept {
        C.free(p)
    }
    return fmt.Sprintf("%d %x", seed, sum.Sum(nil))
}

func main() {
    var group sync.WaitGroup
    results := make([]string, 40)
    for i := range results {
        group.Add(1)
        go func(i int) {
            defer group.Done()
            results[i] = Work(i + 1)
        }(i)
    }
    group.Wait()
    sort.Strings(results)
    fmt.Println(strings.Join(results, "\n"))
    out, err := exec.Command("echo", "a program").Output()
    fmt.Println(string(out), err)
    // As a program of C ends; Go alone would not call what is to be called then.
    C.exit(0)
}
CODE
cat >mixed/main_test.go <<'CODE'
package main

import "testing"

func TestWork(t *testing.T) {
    if Work(5) != Work(5) {
        t.Fatal("not the same")
    }
}
CODE
cat >pure/main.go <<'CODE'
package main

import (
    "crypto/sha256"
    "fmt"
    "sort"
    "strings"
)

func main() {
    done := make(chan string)
    for i := 0; i < 20; i++ {
        go func(i int) {
            words := map[string]int{}
            for j := 0; j < 50000; j++ {
                words[fmt.Sprint(i*j%997)] += j
            }
            var all []string
            for word, n := range words {
                all = append(all, fmt.Sprint(word, n))
            }
            sort.Strings(all)
            done <- fmt.Sprintf("%d %x", i, sha256.Sum256([]byte(strings.Join(all, ","))))
        }(i)
    }
    var results []string
    for i := 0; i < 20; i++ {
        results = append(results, <-done)
    }
    sort.Strings(results)
    fmt.Println(strings.Join(results, "\n"))
}
CODE
cd mixed
CGO_ENABLED=1 AS=build under go build -trimpath -o mixed .
AS=vet under go vet .
AS=tests under go test . | cut -f 1,2
under ./mixed >output
expect 'the number of results' "$(grep -c '^[0-9]' output)" 40
cat output
sha256sum mixed
cd ../pure
# This one starts no program of C.
CGO_ENABLED=0 unserved go build -trimpath -o pure .
sha256sum pure
unserved ./pure
