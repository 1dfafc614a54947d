#!/bin/bash
# unharmed - programs that take no library: a setuid one, one linked statically and,
# where there are such, one of 32 bits. Each runs as without it.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program.c <<'CODE'
int printf(const char *format, ...);
void *malloc(__SIZE_TYPE__ size);
void free(void *block);
unsigned long getauxval(unsigned long type);
int main(void)
{
    long sum = 0;
    for (int i = 0; i < 1000; i++) {
        int *block = malloc(sizeof *block * (i + 1));
        block[i] = i;
        sum += block[i];
        free(block);
    }
    printf("%d bits, secure %d: %ld\n", (int)(8 * sizeof(void *)),
        (int)getauxval(23), sum);
    return 0;
}
CODE
gcc -O1 -fno-builtin -o plain program.c
under ./plain

# Nothing is loaded into a program with another user's rights.
if [ "$(id -u)" -eq 0 ]; then
    chmod 711 .
    install -o 65534 -m 4755 plain secure
    unserved ./secure | tee said
    expect 'what the loader says of it' "$(cut -d : -f 1 said)" \
        '64 bits, secure 1'
else
    unserved su --version
fi

gcc -O1 -fno-builtin -static -o static program.c
unserved ./static

# Debian has a C library of 32 bits for this processor, libc6-i386.
if [ "$(uname -m)" = x86_64 ]; then
    # Without the files that gcc needs to link a program of 32 bits.
    cat >start.c <<'CODE'
void exit(int status);
int main(void);
void start(void) { exit(main()); }
CODE
    gcc -m32 -O1 -fno-builtin -fno-pie -no-pie -nostdlib -mincoming-stack-boundary=2 \
        -Wl,-e,start -Wl,-dynamic-linker,/lib/ld-linux.so.2 \
        -o other program.c start.c /lib32/libc.so.6
    unserved ./other 2>other.log
    # The loader says that it leaves the library out, and nothing else is said.
    ! grep -v 'cannot be preloaded' other.log || die 'more than that was said'
    [ -z "$LIBRARY" ] || grep -q 'cannot be preloaded' other.log
fi
