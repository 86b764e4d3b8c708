// Go's gomemcache. What this prints and awaits: ../programs.py
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

var input = bufio.NewReader(os.Stdin)

func ask(what string) {
	fmt.Println(what)
	if answer, err := input.ReadString('\n'); err != nil || answer != "done\n" {
		os.Exit(1)
	}
}

func settle() { ask("settle") }

// check is a test: it passes if its function returns nil.
func check(name string, test func() error) {
	if err := test(); err != nil {
		fmt.Printf("not ok %s: %.200q\n", name, err.Error())
		return
	}
	fmt.Printf("ok %s\n", name)
}

func eventually(condition func() bool) error {
	for deadline := time.Now().Add(8 * time.Second); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within its time")
		}
	}
	return nil
}

// first is the first of the errors, if any.
func first(errors ...error) error {
	for _, err := range errors {
		if err != nil {
			return err
		}
	}
	return nil
}

func expect(holds bool, what string) error {
	if holds {
		return nil
	}
	return fmt.Errorf("not so: %s", what)
}

func main() {
	address := os.Args[1]
	size, _ := strconv.Atoi(os.Args[3])
	client := memcache.New(address)
	client.Timeout = 20 * time.Second

	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	everyByte = append(everyByte, "\r\nEND\r\n"...)
	set := func(key string, value []byte) error { return client.Set(&memcache.Item{Key: key, Value: value}) }
	has := func(key string, value []byte) error {
		item, err := client.Get(key)
		if err != nil {
			return fmt.Errorf("%s: %v", key, err)
		}
		return expect(bytes.Equal(item.Value, value), "the value of "+key)
	}
	absent := func(key string) error {
		_, err := client.Get(key)
		return expect(err == memcache.ErrCacheMiss, key+" is absent")
	}
	fmt.Println("client gomemcache", os.Getenv("GOMEMCACHE_VERSION"))

	check("text, flags, nothing", func() error {
		err := first(client.Set(&memcache.Item{Key: "text", Value: []byte("value"), Flags: 77}), set("empty", nil), set("number", []byte("42")))
		settle()
		if err != nil {
			return err
		}
		item, err := client.Get("text")
		if err != nil {
			return err
		}
		return first(expect(item.Flags == 77 && string(item.Value) == "value", "flags and value"), has("empty", nil), has("number", []byte("42")), absent("absent"))
	})
	check("every byte", func() error {
		err := set("bytes", everyByte)
		settle()
		return first(err, has("bytes", everyByte))
	})
	check("a key of 250 bytes", func() error {
		key := strings.Repeat("k", 250)
		err := set(key, []byte("long"))
		settle()
		return first(err, has(key, []byte("long")))
	})
	check("a large value", func() error {
		value := bytes.Repeat(everyByte, size/len(everyByte))
		err := set("large", value)
		settle()
		return first(err, has("large", value))
	})
	var keys []string
	check("many at once", func() error {
		for i := 0; i < 200; i++ {
			key := "many" + strconv.Itoa(i)
			keys = append(keys, key)
			if err := set(key, []byte("value "+strconv.Itoa(i))); err != nil {
				return err
			}
		}
		settle()
		found, err := client.GetMulti(append([]string{"absent"}, keys...))
		if err != nil {
			return err
		}
		for i, key := range keys {
			if found[key] == nil || string(found[key].Value) != "value "+strconv.Itoa(i) {
				return fmt.Errorf("%s is missing or wrong", key)
			}
		}
		return expect(len(found) == 200, "200 found")
	})
	check("add and replace", func() error {
		settle()
		return first(
			expect(client.Add(&memcache.Item{Key: "text", Value: []byte("x")}) == memcache.ErrNotStored, "not stored"),
			client.Add(&memcache.Item{Key: "added", Value: []byte("x")}),
			client.Replace(&memcache.Item{Key: "added", Value: []byte("y")}),
			expect(client.Replace(&memcache.Item{Key: "absent", Value: []byte("y")}) == memcache.ErrNotStored, "not stored"),
			has("added", []byte("y")))
	})
	check("cas", func() error {
		mine, err := client.Get("text")
		if err != nil {
			return err
		}
		theirs, err := client.Get("text")
		if err != nil {
			return err
		}
		settle()
		mine.Value, theirs.Value = []byte("new"), []byte("newer")
		err = client.CompareAndSwap(mine)
		conflict := client.CompareAndSwap(theirs)
		settle()
		return first(err, expect(conflict == memcache.ErrCASConflict, "a conflict"), has("text", []byte("new")))
	})
	check("counters", func() error {
		err := set("counter", []byte("10"))
		settle()
		up, err1 := client.Increment("counter", 5)
		down, err2 := client.Decrement("counter", 3)
		least, err3 := client.Decrement("counter", 100)
		_, missing := client.Increment("absent", 1)
		settle()
		again, err4 := client.Increment("counter", 1)
		return first(err, err1, err2, err3, err4, expect(missing == memcache.ErrCacheMiss, "a miss"),
			expect(up == 15 && down == 12 && least == 0 && again == 1, "15, 12, 0, 1"))
	})
	check("delete", func() error {
		settle()
		return first(client.Delete("number"), expect(client.Delete("number") == memcache.ErrCacheMiss, "a miss"), absent("number"))
	})
	check("TTL and touch", func() error {
		err := first(
			client.Set(&memcache.Item{Key: "short", Value: []byte("x"), Expiration: 1}), set("touched", []byte("x")),
			client.Set(&memcache.Item{Key: "kept", Value: []byte("x"), Expiration: 20}))
		settle()
		err = first(err, client.Touch("touched", 1), client.Touch("kept", 1000),
			expect(client.Touch("absent", 1) == memcache.ErrCacheMiss, "a miss"))
		settle()
		return first(err,
			eventually(func() bool { return first(absent("short"), absent("touched")) == nil }), has("kept", []byte("x")))
	})
	check("all is there again after a restart", func() error {
		ask("restart")
		err := eventually(func() bool {
			found, err := client.GetMulti(keys)
			if err != nil || len(found) != 200 {
				return false
			}
			for i, key := range keys {
				if string(found[key].Value) != "value "+strconv.Itoa(i) {
					return false
				}
			}
			return true
		})
		return first(err, has("text", []byte("new")), has("bytes", everyByte))
	})
	check("it is written to after a restart", func() error {
		err := set("text", []byte("after"))
		settle()
		return first(err, has("text", []byte("after")))
	})
	check("deletion of all", func() error { return first(client.FlushAll(), absent("text"), absent("bytes")) })
	fmt.Println("end")
}
