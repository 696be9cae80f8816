package boltlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/broker"
	"github.com/caddy-sse/caddy-sse/hub"
)

// wantUnopenable checks that a file can't be opened, twice, and that the error has its name and these words.
func wantUnopenable(t testing.TB, file string, words ...string) {
	t.Helper()
	before, _ := os.ReadFile(file)
	for range 2 { // the first attempt leaves nothing behind
		_, release, err := useFile(file)
		if err == nil {
			_ = release()
			t.Fatalf("%s was opened", file)
		}
		for _, word := range append(words, file) {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the error %q does not speak of %q", err, word)
			}
		}
	}
	if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
		t.Error("the file is not what it was")
	}
}

func TestErrorForUnopenableFileSaysWhatToDo(t *testing.T) {
	dir, ours := t.TempDir(), []string{"meta", "log", "marks", "answers"}
	write := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	regular := write("regular", nil)
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	const missing, broken = "its directory does not exist; make it", "move it away to begin anew"
	for name, c := range map[string]struct {
		file  string
		words []string
	}{
		"a missing directory":      {filepath.Join(dir, "missing", "sse.db"), []string{missing}},
		"a path below a file":      {filepath.Join(regular, "sse.db"), []string{missing}},
		"a directory":              {filepath.Join(dir, "directory"), []string{"it is a directory; name a file"}},
		"a short text":             {write("short", []byte("hello")), []string{broken}},
		"a text":                   {write("text", bytes.Repeat([]byte("hello\n"), 10_000)), []string{broken}},
		"zeros":                    {write("zeros", make([]byte, 1<<16)), []string{broken}},
		"another program's file":   {write("foreign", foreignFile(t, "users")), []string{"another program"}},
		"a Mercure hub's database": {write("mercure", foreignFile(t, "updates")), []string{"Mercure hub", "another file"}},
		"one with buckets as ours": {write("alike", foreignFile(t, ours...)), []string{"another program"}},
	} {
		t.Run(name, func(t *testing.T) { wantUnopenable(t, c.file, c.words...) })
	}
}

// foreignFile returns another program's bolt file.
func foreignFile(t testing.TB, buckets ...string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "foreign.db")
	db, err := bbolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			bucket, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			if err := bucket.Put([]byte("format"), []byte("another one")); err != nil {
				return err
			}
			if _, err := bucket.CreateBucket([]byte("within")); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestNewAndEmptyFilesAreNewLogs(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(dir, "new"), empty} {
		for range 2 {
			log := openTestLog(t, newModule(file, true))
			if err := log.Close(); err != nil { // the log never began
				t.Error(err)
			}
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others may read the file: %v, %v", info.Mode(), err)
		}
	}
}

func TestFileOpenInAnotherProcessIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sse.db")
	other, err := bbolt.Open(file, 0o600, nil) // a lock belongs to a descriptor, so this is like another process
	if err != nil {
		t.Fatal(err)
	}
	wantUnopenable(t, file, "another process has it open; stop that one")
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	_, release, err := useFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_ = release()
}

// storedLog returns a file with something in each bucket, of several hundred pages.
func storedLog(t testing.TB) []byte {
	t.Helper()
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 30}})
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		batch := make([]*broker.Publication, 20)
		for j := range batch {
			p := keyed(fmt.Sprint("key ", i, j%5), fmt.Sprint(i, j%5, strings.Repeat("x", random.IntN(500))))
			p.To = hub.Topics(fmt.Sprint("topic ", random.IntN(20)))
			batch[j] = p
		}
		_, _ = d.log.Publish(t.Context(), batch) // some of the keys are used twice
	}
	d.restart()
	d.publishAll("last", 1, 100)
	d.publish([]hub.Address{{Kind: hub.ToClient, Name: "c"}}, strings.Repeat("large", 5000))
	d.stop()
	content, err := os.ReadFile(d.module.File)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// dump returns everything in a file that a log reads. Of the buckets' sequences it reads only the log's.
func dump(t testing.TB, db *bbolt.DB) (all []string) {
	t.Helper()
	err := db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			all = append(all, string(name))
			if bytes.Equal(name, logBucket) {
				all = append(all, fmt.Sprint(bucket.Sequence()))
			}
			return bucket.ForEach(func(key, value []byte) error {
				all = append(all, fmt.Sprintf("%x %x", key, value))
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTruncatedFileIsRefused(t *testing.T) {
	sound := storedLog(t)
	file := filepath.Join(t.TempDir(), "sse.db")
	lengths := []int{1, 100, 4095, 4096, 4097, 8191, 8192, 12288, len(sound) / 2}
	for range 20 {
		lengths = append(lengths, 1+rand.IntN(len(sound)/2))
	}
	for _, length := range lengths {
		if err := os.WriteFile(file, sound[:length], 0o600); err != nil {
			t.Fatal(err)
		}
		wantUnopenable(t, file, "move it away to begin anew")
	}
}

// damages are ways in which a file may be damaged.
var damages = map[string]func(*rand.Rand, []byte){
	"a bit": func(random *rand.Rand, file []byte) {
		file[random.IntN(len(file))] ^= 1 << random.IntN(8)
	},
	"a bit at the beginning of a page": func(random *rand.Rand, file []byte) {
		file[random.IntN(len(file)/4096)*4096+random.IntN(100)] ^= 1 << random.IntN(8)
	},
	"some bytes": func(random *rand.Rand, file []byte) {
		for range 1 + random.IntN(20) {
			file[random.IntN(len(file))] = byte(random.Uint32())
		}
	},
	"bits on the first two pages": func(random *rand.Rand, file []byte) {
		for range 1 + random.IntN(3) {
			file[random.IntN(2)*4096+random.IntN(80)] ^= 1 << random.IntN(8)
		}
	},
	"a page of zeros": func(random *rand.Rand, file []byte) {
		clear(page(random, file))
	},
	"a page of noise": func(random *rand.Rand, file []byte) {
		for i, page := 0, page(random, file); i < len(page); i++ {
			page[i] = byte(random.Uint32())
		}
	},
	"one page in place of another": func(random *rand.Rand, file []byte) {
		copy(page(random, file), page(random, file))
	},
	"a torn page": func(random *rand.Rand, file []byte) {
		copy(page(random, file)[512*(1+random.IntN(7)):], page(random, file))
	},
}

// page returns one of the pages of a file.
func page(random *rand.Rand, file []byte) []byte {
	at := random.IntN(len(file)/4096) * 4096
	return file[at : at+4096]
}

func TestDamagedFileIsRefusedOrHoldsEverything(t *testing.T) {
	sound := storedLog(t)
	file := filepath.Join(t.TempDir(), "sse.db")
	if err := os.WriteFile(file, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	db, doubtful, err := openChecked(file)
	if err != nil || doubtful {
		t.Fatalf("the sound file is refused, or doubtful: %v, %t", err, doubtful)
	}
	want := dump(t, db)
	_ = db.Close()
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			outcomes := make(map[string]int)
			for i := range 60 {
				content := bytes.Clone(sound)
				damage(random, content)
				if err := os.WriteFile(file, content, 0o600); err != nil {
					t.Fatal(err)
				}
				outcome, err := useDamaged(t, file, want)
				if err == nil && outcome != "refused" {
					_, err = checkFile(file) // what has been written since is sound
				}
				if err != nil {
					t.Fatalf("seed %d, attempt %d: %v", seed, i, err)
				}
				outcomes[outcome]++
			}
			t.Log(outcomes)
		})
	}
}

// useDamaged opens a damaged file and, if that works, writes to it. The outcome is "refused", "renamed" or
// "sound".
func useDamaged(t testing.TB, file string, sound []string) (outcome string, err error) {
	opened, release, err := useFile(file)
	if err != nil {
		if !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "; ") {
			return "", fmt.Errorf("this error does not say what to do: %w", err)
		}
		return "refused", nil
	}
	defer func() { err = errors.Join(err, release()) }()
	outcome = "sound"
	switch {
	case opened.doubtful:
		outcome = "renamed"
	case !slices.Equal(dump(t, opened.db), sound):
		return "", errors.New("it was opened, and what is in it is not what was written")
	}
	// The file can be written, too.
	opened.update = func(change func(*bbolt.Tx) error) error {
		opened.db.NoSync = true
		return opened.db.Update(change)
	}
	if _, err := opened.begin(true); err != nil {
		return "", err
	}
	err = opened.update(func(tx *bbolt.Tx) error {
		for i := range 50 {
			m := &hub.Message{To: hub.Topics("a"), Data: bytes.Repeat([]byte("x"), 100*i)}
			if err := storeMessage(tx.Bucket(logBucket), m, ""); err != nil {
				return err
			}
		}
		last := tx.Bucket(logBucket).Sequence()
		return put(tx.Bucket(metaBucket), lastKey, positionKey(hub.Position{Major: last}))
	})
	return outcome, err
}
