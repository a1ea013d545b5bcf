// golang.org/x/oauth2/clientcredentials with the certificate of mutual TLS.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func env(name string) string { return os.Getenv("COUNTERSIGN_" + name) }

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	library := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == "golang.org/x/oauth2" {
				library = dependency.Version
			}
		}
	}
	fmt.Printf("%s, golang.org/x/oauth2 %s\n", runtime.Version(), library)

	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(must(os.ReadFile(env("CA"))))
	certificate := must(tls.LoadX509KeyPair(env("CERTIFICATE"), env("KEY")))
	client := &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			ForceAttemptHTTP2: true,
			TLSClientConfig:   &tls.Config{RootCAs: authorities, Certificates: []tls.Certificate{certificate}},
		},
	}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
	config := clientcredentials.Config{
		ClientID:       env("CLIENT_ID"),
		TokenURL:       env("ISSUER") + "/token",
		Scopes:         []string{env("SCOPE")},
		EndpointParams: url.Values{"resource": {env("RESOURCE")}},
		// By certificate: the client's id in the body, no Authorization header (RFC 8705 §2).
		AuthStyle: oauth2.AuthStyleInParams,
	}
	answer := must(config.Client(ctx).Get(env("API")))
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	fmt.Printf("API %d\n", answer.StatusCode)
}
