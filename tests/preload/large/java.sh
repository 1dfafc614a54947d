#!/bin/bash
# java - OpenJDK: javac, a jar, threads, buffers outside the heap, compression,
# three collectors.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

mkdir classes
cat >Program.java <<'CODE'
import java.io.*;
import java.nio.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import java.util.zip.*;

public class Program {
    record Item(int id, String name, double price) {}

    static String sha(byte[] bytes) throws Exception {
        return HexFormat.of().formatHex(
            MessageDigest.getInstance("SHA-256").digest(bytes));
    }

    static String work(int seed) throws Exception {
        Random random = new Random(seed);
        Map<String, Integer> map = new TreeMap<>();
        for (int i = 0; i < 60000; i++)
            map.merge("k" + random.nextInt(5000), i, Integer::sum);
        byte[] text = map.toString().getBytes(StandardCharsets.UTF_8);
        ByteArrayOutputStream packed = new ByteArrayOutputStream();
        try (GZIPOutputStream gzip = new GZIPOutputStream(packed)) {
            gzip.write(text);
        }
        byte[] again = new GZIPInputStream(
            new ByteArrayInputStream(packed.toByteArray())).readAllBytes();
        if (!Arrays.equals(text, again))
            throw new IllegalStateException("compression lost something");
        long sum = 0;
        for (int i = 0; i < 300; i++) {
            ByteBuffer buffer = ByteBuffer.allocateDirect(
                1 + random.nextInt(100000));
            while (buffer.remaining() >= 4)
                buffer.putInt(random.nextInt());
            buffer.flip();
            while (buffer.remaining() >= 4)
                sum += buffer.getInt();
        }
        List<Item> items = IntStream.range(0, 20000)
            .mapToObj(i -> new Item(i, "item " + i * 7919 % 20011,
                random.nextInt(10000) / 100.0))
            .sorted(Comparator.comparing(Item::name)).toList();
        return seed + " " + sha(text) + " " + sum + " "
            + sha(items.toString().getBytes(StandardCharsets.UTF_8));
    }

    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(6);
        List<Future<String>> results = new ArrayList<>();
        for (int seed = 1; seed <= 12; seed++) {
            int mine = seed;
            results.add(pool.submit(() -> work(mine)));
        }
        for (Future<String> result : results)
            System.out.println(result.get());
        pool.shutdown();
        // Threads that come and go.
        LongAdderHolder total = new LongAdderHolder();
        for (int round = 0; round < 20; round++) {
            Thread[] threads = new Thread[20];
            for (int i = 0; i < threads.length; i++) {
                int n = i;
                threads[i] = new Thread(() -> total.add(
                    Integer.toString(n).repeat(1000).hashCode()));
                threads[i].start();
            }
            for (Thread thread : threads)
                thread.join();
        }
        System.out.println(total);
        Path file = Files.createTempFile("java", "test");
        Files.writeString(file, "line\n".repeat(100000));
        System.out.println(Files.lines(file).parallel()
            .mapToInt(String::length).sum());
        Files.delete(file);
        Process process = new ProcessBuilder("echo", "a program").start();
        System.out.print(new String(process.getInputStream().readAllBytes()));
        System.out.println(process.waitFor());
        try {
            List<long[]> much = new ArrayList<>();
            while (true)
                much.add(new long[1 << 20]);
        } catch (OutOfMemoryError error) {
            System.out.println("OutOfMemoryError");
        }
        System.out.println("done");
    }

    static class LongAdderHolder {
        private final java.util.concurrent.atomic.LongAdder sum =
            new java.util.concurrent.atomic.LongAdder();
        void add(long value) { sum.add(value); }
        public String toString() { return sum.toString(); }
    }
}
CODE
under javac -J-Xmx300m -Xlint:all -d classes Program.java
(cd classes && sha256sum ./*.class)
under jar --create --file program.jar --main-class Program -C classes .
mkdir out
(cd out && AS=unjar under jar -xf ../program.jar && sha256sum ./*.class)
for collector in Serial Parallel G1; do
    AS=java-$collector under java -Xmx200m -XX:+Use${collector}GC \
        -XX:ErrorFile=java.log -jar program.jar >output
    expect 'the last line' "$(tail -n 1 output)" 'done'
    cat output
done
