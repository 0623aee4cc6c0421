package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
)

// dialled gives what sends requests to a destination: it trusts the certificates of
// --api-ca, of TUNNOX_API_CA, or of the context whose API it is, beside the system's.
func (f *apiFlags) dialled(to destination) (*http.Client, error) {
	ca, err := f.givenCA()
	if err != nil {
		return nil, err
	}
	if ca == "" {
		k, err := to.place.read()
		if err != nil {
			return nil, err
		}
		if k.api() == to.base {
			ca = k.settings.CA
		}
	}
	if ca == "" {
		return &http.Client{}, nil
	}
	return vouched(ca)
}

// givenCA reads the file of --api-ca, or of the environment; "" without both.
func (f *apiFlags) givenCA() (string, error) {
	return readCA(cmp.Or(f.ca, f.variable("TUNNOX_API_CA")))
}

// readCA reads certificates in PEM; of no file it is "".
func readCA(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the certificates that vouch for the API: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(b) {
		return "", fmt.Errorf("read the certificates that vouch for the API: %s has none in PEM", file)
	}
	return string(b), nil
}

// vouched gives a client that trusts certificates in PEM, beside the system's.
func vouched(ca string) (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a machine without any
	}
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return nil, errors.New("what the context has to vouch for the API is no certificate in PEM; give the file again with tunnox use NAME --api URL --api-ca FILE")
	}
	usual, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the usual transport of HTTP was replaced")
	}
	transport := usual.Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: transport}, nil
}
